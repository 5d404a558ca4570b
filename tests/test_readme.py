"""Every snippet of the README runs, in order, in one namespace a section; every command is well formed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_server import OwnServer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def sections() -> list[tuple[str, list[str]]]:
    """(heading, python snippets) for the sections that have any."""
    found = []
    for section in re.split(r"^##? ", README, flags=re.MULTILINE)[1:]:
        snippets = re.findall(r"^```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
        if snippets:
            found.append((section.splitlines()[0], snippets))
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    started = OwnServer(tmp_path_factory.mktemp("server"))
    yield started
    started.stop()


def test_the_two_commands_are_there() -> None:
    assert '\npip install -e ".[examples]" && python examples/quickstart.py\n' in README
    assert '\npip install -e ".[dev]" && pytest\n' in README


def test_there_are_snippets() -> None:
    assert len(sections()) >= 3


@pytest.mark.filterwarnings("ignore:the stage")  # the snippets have the numbers of a real pool, not of a test's
@pytest.mark.parametrize(("heading", "snippets"), sections(), ids=[heading for heading, _ in sections()])
def test_snippets_run(
    heading: str,
    snippets: list[str],
    readme_names: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    if any("RestBackend" in snippet for snippet in snippets):  # the environment of the section's users
        server: OwnServer = request.getfixturevalue("server")
        monkeypatch.setenv("CVAL_API_KEY", server.key)
        monkeypatch.setenv("CVAL_URL", server.url)
    for number, snippet in enumerate(snippets):
        exec(compile(snippet, f"README.md, {heading}, snippet {number + 1}", "exec"), readme_names)


def test_shell_snippets_parse() -> None:
    for snippet in re.findall(r"^```(?:bash|sh)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL):
        done = subprocess.run(["bash", "-n"], input=snippet, text=True, capture_output=True, check=False)
        assert done.returncode == 0, f"{snippet}\n{done.stderr}"


def test_links_to_files_are_files() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), f"README links to {target}, which is not there"
