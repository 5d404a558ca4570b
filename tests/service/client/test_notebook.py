"""The flows of the public notebook of `cval-lib`: with its imports changed against our client, and against our server
also unchanged, by `cval-lib` itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from own_server import serving_here

FLOWS = Path(__file__).parents[2] / "worlds" / "notebook_flows.py"
NOTEBOOK_KEY = "USER_API_KEY"
PUBLIC_CLIENT = "cval-lib==0.0.2.55"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving_here(tmp_path_factory.mktemp("notebook"), keys=[(None, NOTEBOOK_KEY)]) as url:
        yield url


@pytest.fixture(scope="module")
def flows() -> dict[str, Any]:
    """The flows, with nothing changed but the imports."""
    code = FLOWS.read_text()
    for old, new in [("connection", "service.client"), (r"models\.\w+", "service.client.models")]:
        code = re.sub(rf"^from cval_lib\.{old} import", f"from cval_torch.{new} import", code, flags=re.MULTILINE)
    names: dict[str, Any] = {"__name__": "flows"}
    exec(compile(code, str(FLOWS), "exec"), names)
    return names


def test_every_flow_runs_with_only_its_imports_changed(
    server: str, flows: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CVAL_URL", server)
    with flows["CVALConnection"](NOTEBOOK_KEY) as cval:
        stored = flows["embeddings"](cval, flows["datasets"](cval))
        assert len(stored.get_many()) == 100
        assert stored.get_meta().frames_quantity == 100
        assert len(set(flows["answered_at_once"](cval))) == 10
        printed = capsys.readouterr().out
        assert "dataset_name='sample name' dataset_description='any123 string data'" in printed
        assert "type_of_task='detection' action='sampling' weights=None result=[" in printed
        assert len(set(flows["answered_later"](cval))) == 200
        assert len(set(flows["clustered"](cval))) == 20
        _, by_entropy, chosen = flows["combined"](cval)
        assert len(set(by_entropy)) == 20
        assert len(set(chosen)) == 2
        assert set(chosen) <= set(by_entropy)


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


def test_the_public_client_cannot_tell_our_server_from_the_service(public_client: Path, tmp_path: Path) -> None:
    with serving_here(tmp_path / "data", keys=[(None, NOTEBOOK_KEY)]) as url:
        done = subprocess.run(
            [public_client, str(FLOWS), url],
            env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "all flows ran: 2"
