"""Regular expressions of strangers, matched where they can do no harm."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence

from cval_torch.service.server.settings import RefusedError

MAX_PATTERN_LENGTH = 256
SECONDS = 2.0

_PLAIN = re.compile(r"[\w \-]*")
_PROGRAM = """
import json, re, sys
pattern, texts = json.load(sys.stdin)
try:
    found = re.compile(pattern)
except (re.error, OverflowError, RecursionError, MemoryError) as error:
    print(json.dumps(str(error)))
else:
    print(json.dumps([text is not None and found.search(text) is not None for text in texts]))
"""


def matching(pattern: str, texts: Sequence[str | None]) -> list[bool]:
    """Whether each text has a match.

    A pattern such as `(a+)+$` can take longer than anyone waits, and holds the interpreter while it does: all but plain
    words are matched by another one, which is ended after 2 seconds.

    Args:
        pattern: a regular expression of Python.
        texts: None matches nothing.

    Raises:
        RefusedError: 422, it is no regular expression, or takes too long.
    """
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise RefusedError(422, f"a regular expression has at most {MAX_PATTERN_LENGTH} characters")
    if _PLAIN.fullmatch(pattern):
        return [text is not None and pattern in text for text in texts]
    try:
        done = subprocess.run(  # noqa: S603 - the program is the constant above; the pattern is its input
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            input=json.dumps([pattern, list(texts)]).encode(),
            capture_output=True,
            timeout=SECONDS,
            check=True,
        )
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise RefusedError(422, "this regular expression takes too long") from error
    except (subprocess.CalledProcessError, ValueError) as error:
        raise RefusedError(422, "this regular expression cannot be used") from error
    if isinstance(answer, str):
        raise RefusedError(422, f"not a regular expression: {answer[:200]}")
    return [bool(each) for each in answer]
