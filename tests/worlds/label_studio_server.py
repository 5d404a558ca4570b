"""Label Studio itself, on loopback, with a database in a folder that goes away."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

VARIABLE = "CVAL_LABEL_STUDIO"
"""Names the program `label-studio`, which has an environment of its own."""


def program() -> str:
    """Where the tool is. Without it the test is skipped, but in continuous integration it fails."""
    found = os.environ.get(VARIABLE) or shutil.which("label-studio")
    if found:
        return found
    why = f"install label-studio==1.23.2 in an environment of its own, and name its program by {VARIABLE}"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


class LabelStudio:
    """Its API, as one user."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Token {token}"

    def get(self, path: str, **parameters: Any) -> requests.Response:
        answer = self._session.get(self.url + path, params=parameters, timeout=120)
        answer.raise_for_status()
        return answer

    def post(self, path: str, body: Any) -> Any:
        answer = self._session.post(self.url + path, json=body, timeout=120)
        assert answer.status_code < 300, f"{path}: {answer.status_code} {answer.text[:2000]}"
        return answer.json()

    def project(self, title: str, label_config: str) -> int:
        made = self.post("/api/projects/", {"title": title, "label_config": label_config})
        return int(made["id"])

    def tasks(self, project: int, **parameters: Any) -> list[dict[str, Any]]:
        found = self.get("/api/tasks/", project=project, fields="all", page_size=100, **parameters).json()
        return list(found["tasks"])

    def export(self, project: int, kind: str, *, download_all_tasks: str = "true") -> bytes:
        path = f"/api/projects/{project}/export"
        return self.get(path, exportType=kind, download_all_tasks=download_all_tasks).content

    def upload(self, project: int, files: dict[str, bytes]) -> dict[str, Any]:
        path = f"/api/projects/{project}/import"
        answer = self._session.post(self.url + path, files=dict(zip(files, files.items(), strict=True)), timeout=120)
        assert answer.status_code < 300, f"{path}: {answer.status_code} {answer.text[:2000]}"
        return dict(answer.json())

    def status(self, path: str) -> int:
        return self._session.get(self.url + path, timeout=120).status_code


@contextmanager
def label_studio(folder: Path, *, document_root: Path, start_within: float = 400) -> Iterator[LabelStudio]:
    """The tool, started with the variables that our `README.txt` names, and stopped whatever happens.

    Args:
        folder: an empty one, for its database and its log.
        document_root: whose files it serves.
        start_within: seconds.
    """
    executable, token = program(), secrets.token_hex(20)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ours = ("PYTHON", "LABEL_STUDIO", "VIRTUAL")
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(ours)},
        "HOME": str(folder),
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "data"),
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(document_root),
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LATEST_VERSION_CHECK": "false",
        "COLLECT_ANALYTICS": "false",
        "NO_PROXY": "127.0.0.1",
    }
    user = ["--username", "somebody@example.org", "--password", secrets.token_hex(8), "--user-token", token]
    where = ["--no-browser", "--internal-host", "127.0.0.1", "--port", str(port), "--data-dir", str(folder / "data")]
    log = folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [executable, "start", *where, *user],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process, log, start_within)
            yield LabelStudio(url, token)
        finally:
            _stop(process)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            if requests.get(f"{url}/health", timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.5)
    pytest.fail(f"Label Studio did not start:\n{log.read_text(errors='replace')[-4000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """It and what it started: they are a group of processes of their own."""
    for kind, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 30)):
        try:
            os.killpg(process.pid, kind)
            process.wait(seconds)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait(30)
