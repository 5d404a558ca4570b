"""The public notebook of `cval-lib`, cell by cell: with its imports changed against our client, and against our server
also unchanged, by `cval-lib` itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from own_server import serving_here

ROOT = Path(__file__).parents[3]
NOTEBOOK = ROOT.parent / "shared" / "seed-notebook.md"
NOTEBOOK_KEY = "USER_API_KEY"
PUBLIC_CLIENT = "cval-lib==0.0.2.55"
OUTPUT = re.compile(r"[0-9a-f]{8}-|\{'|dataset_name=|\(FrameEmbedding|\[|task_id='|Polling|frames_quantity|#+ |:note")

needs_notebook = pytest.mark.skipif(not NOTEBOOK.exists(), reason=f"{NOTEBOOK} is not there")


def cells() -> list[str]:
    """The code of each cell: up to a blank line with an output or a heading after it."""
    found = []
    for text in re.split(r"^In \[\d+\]:\n", NOTEBOOK.read_text(), flags=re.MULTILINE)[1:]:
        lines = text.splitlines()
        end = next(
            (row for row in range(1, len(lines)) if not lines[row - 1] and is_output(lines[row:])),
            len(lines),
        )
        code = "\n".join(lines[:end]).strip()
        if not code.startswith("!"):
            found.append(code)
    return found


def is_output(lines: list[str]) -> bool:
    comment = lines[0].startswith(("# :note", "# :NOTE"))
    return bool(OUTPUT.match(lines[0])) and not comment


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving_here(tmp_path_factory.mktemp("notebook"), keys=[(None, NOTEBOOK_KEY)]) as url:
        yield url


@needs_notebook
def test_the_cells_are_found() -> None:
    assert len(cells()) == 12
    for cell in cells():
        compile(cell, "cell", "exec")


@needs_notebook
def test_every_cell_runs_with_only_its_imports_changed(
    server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CVAL_URL", server)
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.1)))
    names: dict[str, Any] = {}
    after = []
    for cell in cells():
        code = re.sub(
            r"^from cval_lib\.connection import", "from cval_torch.service.client import", cell, flags=re.MULTILINE
        )
        code = re.sub(
            r"^from cval_lib\.models\.\w+ import",
            "from cval_torch.service.client.models import",
            code,
            flags=re.MULTILINE,
        )
        exec(compile(code, "cell", "exec"), names)
        after.append({name: names.get(name) for name in ("result", "ds_id")})
    printed = capsys.readouterr().out
    assert "dataset_name='sample name' dataset_description='any123 string data'" in printed
    assert "type_of_task='detection' action='sampling' weights=None result=[" in printed
    polled, clustered, combined = (each["result"] for each in after[-3:])
    assert len(set(polled)) == 200
    assert len(set(clustered)) == 20
    assert len(set(combined)) == 2
    names["cval"].close()


SCRIPT = """
import sys, time
from cval_lib.configs.main_config import MainConfig
MainConfig.main_url = sys.argv[1]
slept = time.sleep
time.sleep = lambda seconds: slept(min(seconds, 0.1))
names = {}
for number, cell in enumerate(sys.stdin.read().split("\\0")):
    exec(compile(cell, f"cell {number}", "exec"), names)
    if "emb" in names and hasattr(names["emb"], "get_by_id"):
        first = names["emb"].get_many()[0]
        one = names["emb"].get_by_id(first.frame_id, first.embeddings[0].embedding_id)  # with its doubled slash
        assert one == first
        names["emb"].delete_by_id(first.frame_id)
        assert len(names["emb"].get_meta().frames) == 99
        names["emb"].delete_all()
        assert names["emb"].get_many() == []
        assert names["cval"].dataset().get_all(name="sample")[0].dataset_name == "sample name"
        del names["emb"]
assert len(names["cval"].result().get_many()) == 5
assert len(names["cval"].result().get_many(dataset_id=names["ds_id"])) == 2
from cval_lib.utils.exceptions import NotFound, SchemaException
for call, kind in [
    (lambda: names["cval"].dataset().get("nope"), NotFound),
    (lambda: names["cval"].result().get("nope"), NotFound),
    (lambda: names["cval"].detection().on_premise_sampling({"frames": []}), SchemaException),
]:
    try:
        call()
    except kind as error:
        assert "detail" in str(error), error
    else:
        raise AssertionError(kind)
print("all flows ran:", len(names["result"]))
"""


def index_is_reached() -> bool:
    """Whether the package index that pip is set up with answers at all."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    )
    url = os.environ.get("PIP_INDEX_URL") or done.stdout.strip() or "https://pypi.org/simple"
    try:
        urllib.request.urlopen(f"{url.rstrip('/')}/cval-lib/", timeout=20).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def public_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment of its own with `cval-lib`, which pins pydantic 1."""
    if os.environ.get("CI") != "true" and not index_is_reached():
        pytest.skip("the package index cannot be reached")
    place = tmp_path_factory.mktemp("public")
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    python = place / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PUBLIC_CLIENT], check=True
    )
    return python


@needs_notebook
def test_the_public_client_cannot_tell_our_server_from_the_service(public_client: Path, tmp_path: Path) -> None:
    with serving_here(tmp_path / "data", keys=[(None, NOTEBOOK_KEY)]) as url:
        done = subprocess.run(
            [public_client, "-c", SCRIPT, url],
            input="\0".join(cells()),
            env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "all flows ran: 2"
