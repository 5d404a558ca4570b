"""The files in `examples/deploy/` start a server as the command line takes it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from cval_torch.cli.main import _parser

DEPLOY = Path(__file__).parents[2] / "examples" / "deploy"
UNIT = (DEPLOY / "cval-torch.service").read_text()
CONTAINER = (DEPLOY / "Containerfile").read_text()


def test_the_unit_starts_a_server_that_may_do_little() -> None:
    (command,) = re.findall(r"^ExecStart=\S+/cval-torch (.*)$", UNIT, flags=re.MULTILINE)
    options = _parser().parse_args(shlex.split(command))
    assert (options.host, options.data, options.api_key_file) == (
        "127.0.0.1", Path("/var/lib/cval-torch"), Path("/etc/cval-torch/keys")
    )  # fmt: skip
    for line in ("NoNewPrivileges=true", "ProtectSystem=strict", "UMask=0077", "OOMPolicy=continue", "Restart=always"):
        assert f"\n{line}\n" in UNIT


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_knows_every_line_of_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "cval-torch.service"
    unit.write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", UNIT))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert "cval-torch.service:" not in done.stderr


def test_the_container_starts_a_server_and_looks_whether_it_lives() -> None:
    (command,) = re.findall(r"^CMD (\[.*\])$", CONTAINER, flags=re.MULTILINE)
    options = _parser().parse_args(json.loads(command))
    assert (options.host, options.port, options.data) == ("0.0.0.0", 8000, Path("/data"))
    assert "\nUSER cval\n" in CONTAINER
    assert "http://127.0.0.1:8000/livez" in CONTAINER
    assert options.api_key_file == Path("/run/cval/keys")
    assert "-v ./cval-keys:/run/cval:ro" in CONTAINER


def test_the_container_has_all_that_the_package_is_built_from() -> None:
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    root = DEPLOY.parents[1]
    copied = [name for line in re.findall(r"^COPY (.*) /src/", CONTAINER, flags=re.MULTILINE) for name in line.split()]
    assert all((root / name).exists() for name in copied)
    project = tomllib.loads((root / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert needed.union(wheel["packages"], wheel["force-include"]) == set(copied)
    extra = re.search(r'"/src\[(\w+)\]"', CONTAINER)
    assert extra is not None
    assert extra.group(1) in project["project"]["optional-dependencies"]
