"""The README and the guide's pages: every snippet runs, every command is well formed, every link leads somewhere.

The snippets of a section run in order, in one namespace. Those of a page's sections go on in the same namespace, as a
reader goes on; the README's sections each stand alone.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_server import OwnServer

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "examples").glob("*.md"))]
PAGES += sorted((ROOT / "examples" / "guide").glob("*.md"))


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def snippets() -> list[tuple[str, list[str]]]:
    """(where, python snippets that run in one namespace)."""
    found = []
    for page in PAGES:
        text = page.read_text()
        parts = re.split(r"^##? ", text, flags=re.MULTILINE) if page.name == "README.md" else [text]
        for part in parts:
            if blocks(part, "python"):
                where = names(page) if len(parts) == 1 else f"{names(page)}: {part.splitlines()[0]}"
                found.append((where, blocks(part, "python")))
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    started = OwnServer(tmp_path_factory.mktemp("server"))
    yield started
    started.stop()


def test_the_two_commands_are_there() -> None:
    assert '\npip install -e ".[examples]" && python examples/quickstart.py\n' in README
    assert '\npip install -e ".[dev]" && pytest\n' in README


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 250


def test_there_are_snippets() -> None:
    assert len(snippets()) >= 12


@pytest.mark.filterwarnings("ignore:the stage")  # the snippets have the numbers of a real pool, not of a test's
@pytest.mark.filterwarnings("ignore:RFDETRNanoConfig was instantiated with", "ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize(("where", "code"), snippets(), ids=[where for where, _ in snippets()])
def test_snippets_run(
    where: str,
    code: list[str],
    page_names: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    if any("RestBackend" in snippet for snippet in code):  # the environment of the section's users
        server: OwnServer = request.getfixturevalue("server")
        monkeypatch.setenv("CVAL_API_KEY", server.key)
        monkeypatch.setenv("CVAL_URL", server.url)
    if any('"clip.mp4"' in snippet for snippet in code):  # the reader's own video
        pytest.importorskip("clips").write_clip(tmp_path / "clip.mp4")
    for number, snippet in enumerate(code):
        exec(compile(snippet, f"{where}, snippet {number + 1}", "exec"), page_names)


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_shell_snippets_parse(page: Path) -> None:
    for snippet in blocks(page.read_text(), "(?:bash|sh)"):
        done = subprocess.run(["bash", "-n"], input=snippet, text=True, capture_output=True, check=False)
        assert done.returncode == 0, f"{snippet}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
        linked = page.parent / target if target else page
        assert linked.exists(), f"{names(page)} links to {target}, which is not there"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), flags=re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_every_guide_page_is_in_the_readme_and_in_the_contents() -> None:
    guide = ROOT / "examples" / "guide"
    contents = (guide / "index.md").read_text()
    for page in guide.glob("*.md"):
        if page.name != "index.md":
            assert f"(examples/guide/{page.name})" in README, page.name
            assert f"\n{page.stem}\n" in contents, page.name


def test_scripts_of_the_guide_name_the_pages_that_exist() -> None:
    """What a page says of commands: `python examples/...` names a script."""
    for page in PAGES:
        for script in re.findall(r"python (examples/[\w/]+\.py)", page.read_text()):
            assert (ROOT / script).exists(), f"{names(page)}: {script}"


def test_files_that_the_package_names_exist() -> None:
    """Messages and docstrings send people to scripts."""
    for module in (ROOT / "cval_torch").rglob("*.py"):
        for named in re.findall(r"\b(?:examples|tests)/[\w/]+\.(?:py|md)", module.read_text()):
            assert (ROOT / named).exists(), f"{names(module)}: {named}"
