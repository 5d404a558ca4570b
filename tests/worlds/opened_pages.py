"""Pages of a report in a real browser, and names that would break a page that is not careful."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HOSTILE = [
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\"'><b>bold</b>",
    "nul\x00and\x01control",
    "line\nbreak\r\nand\ttab",
    "\u202egpj.exe\u2066",
    "\N{HEBREW LETTER SHIN}\N{HEBREW LETTER LAMED} 1",
    "{{ 7 * 7 }}{% raw %}",
    "lone\ud800surrogate",
    '"quoted',
]


@contextmanager
def opened(browser: Any, path: Path, *, width: int = 1280, scheme: str = "light", script: bool = True) -> Iterator[Any]:
    """A page; nothing may be complained of, and nobody asked for anything."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script, accept_downloads=True
    )
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("data:", "blob:")) or complaints.append(request.url))
    page.goto(path.as_uri())
    yield page
    asked = [each for each in complaints if each.split("#")[0] != path.as_uri()]
    context.close()
    assert asked == []


def serious_faults(page: Any, axe: str) -> list[list[str]]:
    """What axe calls serious or critical: impact, rule and element."""
    # an isolated world is not under the policy of the page
    session = page.context.new_cdp_session(page)
    tree = session.send("Page.getFrameTree")
    world = session.send("Page.createIsolatedWorld", {"frameId": tree["frameTree"]["frame"]["id"]})
    where = {"contextId": world["executionContextId"], "awaitPromise": True, "returnByValue": True}
    session.send("Runtime.evaluate", {"expression": axe, "contextId": where["contextId"]})
    run = "axe.run().then(found => found.violations.map(each => [each.impact, each.id, each.nodes[0].html]))"
    found = session.send("Runtime.evaluate", {"expression": run, **where})["result"]["value"]
    return [each for each in found if each[0] in ("serious", "critical")]
