"""Large bodies are answered as small ones are: the same frames, and the same refusals in the same words."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cval_torch.service.server import incoming, splitting
from cval_torch.service.server.incoming import Portion, incoming_embeddings, incoming_sampling
from cval_torch.service.server.payloads import Body
from cval_torch.service.server.settings import RefusedError

MOST = 1 << 20


def merged(portions: list[Portion[Any]], inner: str) -> list[tuple[Any, list[Any] | None]]:
    """The frames, those that came in several portions put together."""
    frames: list[tuple[Any, list[Any] | None]] = []
    unended = False
    for portion in portions:
        assert portion.frames
        assert portion.continued is unended, "what goes on was not ended, and what was not goes on"
        unended = portion.unended
        for place, frame in enumerate(portion.frames):
            items = getattr(frame, inner)
            head = frame.model_dump(exclude={inner})
            if portion.continued and place == 0:
                before, held = frames[-1]
                assert before == head
                frames[-1] = (head, [*(held or []), *items])
            else:
                frames.append((head, items))
    assert not unended
    return frames


def verdict(body: Body, what: str, *, most: int = MOST) -> tuple[Any, ...]:
    """What is read, or why it is not. Where in a text it stops being JSON is left out."""
    try:
        if what == "sampling":
            request, portions = incoming_sampling(body, most=most)
            assert request.frames == []
            return request, merged(list(portions), "predictions")
        return (merged(list(incoming_embeddings(body, most=most)), "embeddings"),)
    except RefusedError as refusal:
        is_json = not refusal.detail.startswith("Invalid JSON")
        return refusal.status, refusal.detail if is_json else "Invalid JSON"


def both(text: bytes, what: str, *, run: int = 40, block: int = 17) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The verdict on a body in memory, and on the same body in a file, read in very small portions."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "body"
        path.write_bytes(text)
        with mock.patch.multiple(splitting, RUN=run, _BLOCK=block), mock.patch.object(incoming, "RUN", run):
            return verdict(text, what), verdict(path, what)


junk = st.sampled_from(
    [None, True, 0, -1, 1.5, "", "x" * 50, "\\", '"', [], {}, [[1]], {"a": [1]}, 10**30, float("nan")]
)
boxes = st.fixed_dictionaries(
    {},
    optional={
        "category_id": st.integers(-1, 9) | st.sampled_from(["7", 2**63, "x"]) | junk,
        "score": st.floats(0.1, 0.9) | junk,
        "embedding_id": st.sampled_from(["0", "é"]) | junk,
        "probabilities": st.lists(st.floats(0, 1), max_size=4) | st.lists(junk, max_size=2),
        "more": junk,
    },
)
good_boxes = st.fixed_dictionaries(
    {"score": st.floats(0.1, 0.9), "probabilities": st.lists(st.floats(0, 1), max_size=9)}
)
names = st.text(min_size=1, max_size=3)
frames = st.fixed_dictionaries(
    {"frame_id": names | st.sampled_from(["", "x" * 129])},
    optional={"predictions": st.lists(boxes | junk, max_size=5) | junk, "x": junk, "labeled": st.booleans()},
)
good_frames = st.fixed_dictionaries(
    {"frame_id": names, "predictions": st.none() | st.lists(good_boxes, max_size=5)},
    optional={"x": junk, "labeled": st.booleans(), "embedding_id": st.sampled_from(["0", "é"])},
)
vectors = st.fixed_dictionaries({"embedding_id": names, "embedding": st.lists(st.floats(-9, 9), max_size=9)})
uploads = st.lists(
    st.fixed_dictionaries({"frame_id": names, "embeddings": st.lists(vectors | junk, max_size=4) | junk})
    | st.fixed_dictionaries({"frame_id": names, "embeddings": st.lists(vectors, max_size=5)}),
    max_size=6,
)
requests = st.fixed_dictionaries(
    {"selection_strategy": st.just("margin"), "num_of_samples": st.just(2)},
    optional={
        "frames": st.lists(good_frames, max_size=6) | st.lists(frames | junk, max_size=5) | junk,
        "num_of_clusters": junk,
        "probs_weights": st.lists(st.floats(0, 1), max_size=3) | junk,
        "scored_by": st.just({"selection_strategy": "least"}) | junk,
        "later": junk,
    },
)
spaces = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t: ")])
edits = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(0, 3), st.sampled_from(list(b'{}[],:"\\ 0n\xff\n'))), max_size=2
)


def edited(text: bytes, changes: list[tuple[int, int, int]]) -> bytes:
    """A text with bytes removed, put in, exchanged, or with all that comes after them cut off."""
    for place, kind, byte in changes:
        at = place % (len(text) + 1)
        after = [text[at + 1 :], text[at:], text[at + 1 :], b""][kind]
        text = text[:at] + (bytes([byte]) if kind in (1, 2) else b"") + after
    return text


@given(request=requests, space=spaces, changes=edits, twice=st.none() | st.lists(frames, max_size=3),
       run=st.integers(1, 200), block=st.integers(1, 99))  # fmt: skip
@example(request={}, space=(",", ":"), changes=[], twice=None, run=9, block=9)
@settings(deadline=None, max_examples=200)
def test_requests_in_memory_and_in_files_are_read_alike(
    request: Any, space: tuple[str, str], changes: Any, twice: Any, run: int, block: int
) -> None:
    text = json.dumps(request, separators=space, ensure_ascii=False).encode()
    if twice is not None:  # of a key that stands twice the last counts
        text = b'{"frames":%b,%b' % (json.dumps(twice).encode(), text[1:])
    small, large = both(edited(text, changes), "sampling", run=run, block=block)
    assert repr(large) == repr(small)  # as text: NaN is not equal to itself


@given(upload=uploads | junk, space=spaces, changes=edits, run=st.integers(1, 200), block=st.integers(1, 99))
@settings(deadline=None, max_examples=150)
def test_uploads_in_memory_and_in_files_are_read_alike(
    upload: Any, space: tuple[str, str], changes: Any, run: int, block: int
) -> None:
    text = json.dumps(upload, separators=space, ensure_ascii=False).encode()
    small, large = both(edited(text, changes), "embeddings", run=run, block=block)
    assert repr(large) == repr(small)


HEAD = b'{"num_of_samples":1,"selection_strategy":"margin",'
BOX = b'{"score":0.5}'
HOSTILE = {
    "nothing": b"",
    "blank": b" \n",
    "byte order mark": b"\xef\xbb\xbf" + HEAD + b'"frames":[{"frame_id":"a"}]}',
    "utf-16": json.dumps({"frames": []}).encode("utf-16"),
    "nan as a score": HEAD + b'"frames":[{"frame_id":"a","predictions":[{"score":NaN}]}]}',
    "nan in what nobody reads": HEAD + b'"x":NaN,"frames":[{"frame_id":"a","y":-Infinity}]}',
    "too large a float": HEAD + b'"frames":[{"frame_id":"a","predictions":[{"probabilities":[1e999]}]}]}',
    "too long an integer": HEAD + b'"frames":[{"frame_id":"a","x":' + b"9" * 5000 + b"}]}",
    "a huge category": HEAD + b'"frames":[{"frame_id":"a","predictions":[{"category_id":' + b"9" * 400 + b"}]}]}",
    "not utf-8 in an id": HEAD + b'"frames":[{"frame_id":"a"},{"frame_id":"\xff"}]}',
    "not utf-8 in a key": HEAD + b'"frames":[{"frame_id":"a","\xff":1}]}',
    "half a surrogate": HEAD + b'"frames":[{"frame_id":"\\ud800"}]}',
    "a control character": HEAD + b'"frames":[{"frame_id":"a\n"}]}',
    "as deep as may be": HEAD + b'"frames":[{"frame_id":"a","x":' + b"[" * 198 + b"]" * 198 + b"}]}",
    "one too deep": HEAD + b'"frames":[{"frame_id":"a","x":' + b"[" * 199 + b"]" * 199 + b"}]}",
    "a box as deep as may be": HEAD + b'"frames":[{"frame_id":"a","predictions":[' + BOX + b',{"score":0.5,"x":'
    + b"[" * 196 + b"]" * 196 + b"}]}]}",
    "a box too deep": HEAD + b'"frames":[{"frame_id":"a","predictions":[' + BOX + b',{"score":0.5,"x":'
    + b"[" * 197 + b"]" * 197 + b"}]}]}",
    "far too deep": HEAD + b'"frames":' + b"[" * 100_000,
    "two documents": HEAD + b'"frames":[{"frame_id":"a"}]} {}',
    "garbage after the end": HEAD + b'"frames":[{"frame_id":"a"}]}]',
    "cut off": HEAD + b'"frames":[{"frame_id":"a"},',
    "cut off in a string": HEAD + b'"frames":[{"frame_id":"a\\',
    "a comma too many": HEAD + b'"frames":[{"frame_id":"a"},]}',
    "a comma too early": HEAD + b'"frames":[,{"frame_id":"a"}]}',
    "two commas": HEAD + b'"frames":[{"frame_id":"a"}, ,{"frame_id":"b"}]}',
    "two commas between boxes": HEAD + b'"frames":[{"frame_id":"a","predictions":[' + BOX + b",," + BOX + b"]}]}",
    "commas alone": HEAD + b'"frames":[,,,,,]}',
    "no comma": HEAD + b'"frames":[{"frame_id":"a"} {"frame_id":"b"}]}',
    "the wrong bracket": HEAD + b'"frames":[{"frame_id":"a"}}}',
    "the wrong bracket within": HEAD + b'"frames":[{"frame_id":"a","predictions":[{]}}]}',
    "a backslash outside": HEAD + b'"frames":[{"frame_id":"a"}\\,{"frame_id":"b"}]}',
    "an escaped quote outside": HEAD + b'"frames":[{"frame_id":\\"a"}]}',
    "frames twice": HEAD + b'"frames":[{"frame_id":"a"}],"frames":[{"frame_id":"b"}]}',
    "frames twice, wrong first": HEAD + b'"frames":[{"frame_id":""}],"frames":[{"frame_id":"b"}]}',
    "frames twice, no json first": HEAD + b'"frames":[{"frame_id":nul}],"frames":[{"frame_id":"b"}]}',
    "frames twice, null last": HEAD + b'"frames":[{"frame_id":"a"}],"frames":null}',
    "frames twice, null first": HEAD + b'"frames":null,"fr\\u0061mes":[{"frame_id":"a"}]}',
    "boxes twice": HEAD + b'"frames":[{"frame_id":"a","predictions":[{"score":7}],"predictions":[' + BOX + b"]}]}",
    "boxes twice, null last": HEAD + b'"frames":[{"frame_id":"a","predictions":[{"score":7}],"predictions":null}]}',
    "an id twice": HEAD + b'"frames":[{"frame_id":"a","predictions":[{"score":0.5},{"score":0.25}],"frame_id":"b"}]}',
    "wrong in many places": HEAD[:-1] + b',"seed":-1,"frames":[' + b'{"frame_id":"","predictions":[{"score":2},3]},' * 9
    + b'7],"scored_by":{"seed":-1}}',
    "wrong before and after": b'{"num_of_samples":0,"scored_by":{},"frames":[]}',
    "a list": b"[1, 2, 3]",
    "a string": b'"' + b"frames" * 99 + b'"',
    "a number": b"1e5",
    "an object for a list": b'{"0": {"frame_id": "a"}}',
    "an upload": b'[{"frame_id":"a","embeddings":[{"embedding_id":"0","embedding":[1.0]}]}]',
    "an upload with half a frame": b'[{"frame_id":"a","embeddings":[{"embedding_id":"0"},{"embedding":[1]}]},{}]',
    "an upload of nothing": b"[ ]",
    "an upload that is null": b"[null]",
}  # fmt: skip


@pytest.mark.parametrize("what", ["sampling", "embeddings"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_in_memory_and_in_files(name: str, what: str) -> None:
    for run, block in [(1, 1), (20, 7), (40, 1 << 20), (splitting.RUN, 1 << 20)]:
        small, large = both(HOSTILE[name], what, run=run, block=block)
        assert repr(large) == repr(small)


def test_all_that_is_wrong_is_counted_and_the_first_is_named() -> None:
    _, (status, said) = both(HOSTILE["wrong in many places"], "sampling", run=30)
    assert status == 422
    assert said.startswith("seed: Input should be greater than or equal to 0; frames.0.frame_id: String should have")
    assert said.count("; ") == 5, "five, and how many more"
    assert said.endswith("; and 26 more")


def test_a_large_body_is_read_in_portions(tmp_path: Path) -> None:
    """Of a file of two megabytes no portion is more than a quarter of one, be it many frames or one large frame."""
    box = {"category_id": 1, "score": 0.5, "probabilities": [0.1] * 20}
    sizes = [3] * 1000 + [8000] + [0, 1]
    content = {"num_of_samples": 1, "selection_strategy": "margin", "frames": [
        {"frame_id": f"f{row}", "predictions": [box] * size} for row, size in enumerate(sizes)]}  # fmt: skip
    path = tmp_path / "body"
    path.write_text(json.dumps(content, separators=(",", ":")))
    a_box = len(json.dumps(box, separators=(",", ":")))
    request, portions = incoming_sampling(path, most=MOST)
    held = list(portions)
    boxes = [sum(len(frame.predictions or ()) for frame in portion.frames) for portion in held]
    assert sum(boxes) == sum(sizes)
    assert max(boxes) * a_box <= splitting.RUN
    assert [(head["frame_id"], len(items or ())) for head, items in merged(held, "predictions")] == [
        (f"f{row}", size) for row, size in enumerate(sizes)
    ]
    assert request.num_of_samples == 1


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        (b'"later":"%b","frames":[]}' % (b"x" * 300), 413, "at most 200 bytes of a JSON value beside its `frames`"),
        (b'"frames":[{"frame_id":"a","later":"%b"}]}' % (b"x" * 300), 413, "value beside its `predictions`"),
        (b'"frames":[{"frame_id":"a","predictions":[{"later":"%b"}]}]}' % (b"x" * 300), 413, "200 bytes of a JSON"),
        (b'"frames":[{"frame_id":"%b"}]}' % (b"x" * 180), 422, "frames.0.frame_id: String should have at most 128"),
        (b'"frames":[{"frame_id":"a","later":[%b]}]}' % (b"1," * 99 + b"1"), 413, "value beside its `predictions`"),
    ],
)
def test_what_is_read_in_one_piece_has_a_bound(tmp_path: Path, text: bytes, status: int, message: str) -> None:
    path = tmp_path / "body"
    path.write_bytes(HEAD + text)
    with mock.patch.object(splitting, "RUN", 100), mock.patch.object(incoming, "RUN", 100):
        got, said = verdict(path, "sampling", most=200)
    assert got == status
    assert message in said


@pytest.mark.parametrize("opening", [b"[", b'"', b"7", b"nul", b"{"])
def test_a_body_of_the_wrong_kind_is_not_read_to_its_end(tmp_path: Path, opening: bytes) -> None:
    path = tmp_path / "body"
    path.write_bytes(opening + b"1" * 5000)
    what = "embeddings" if opening == b"{" else "sampling"
    with mock.patch.object(incoming, "split", side_effect=AssertionError("read on")):
        status, said = verdict(path, what, most=100)
    assert status == 422
    assert len(said) < 300
