"""One contract for every way of choosing frames: the same ids, in the same order, from the same pool and stages.

`LocalBackend` in process, `RestBackend` through a real server process, and `RestBackend` through the same application
in this process.
"""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from own_server import KEY, own_server, serving_here
from strategy_names import ON_OBJECTS, SERVED_STRATEGIES, UNCERTAINTY_STRATEGIES

from cval_torch.errors import CvalError, InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.selection.backend import Backend, Selection
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling
from cval_torch.service.protocol import DetectionSamplingRequest
from cval_torch.service.rest import RestBackend
from cval_torch.service.server.settings import Limits

SERVED = [name for name in SERVED_STRATEGIES if name != "class_gain"]  # which is `auto`

pytestmark = pytest.mark.filterwarnings("ignore:the stage:UserWarning")


@pytest.fixture(scope="module")
def process_backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with (
        own_server(tmp_path_factory.mktemp("process")) as server,
        RestBackend(api_key=KEY, url=server.url, progress=False) as backend,
    ):
        yield backend


@pytest.fixture(scope="module")
def here_backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """Here every request of more than 60 boxes becomes a task, which a worker process runs."""
    with (
        serving_here(tmp_path_factory.mktemp("here"), Limits(answer_at_once=60)) as url,
        RestBackend(api_key=KEY, url=url, progress=False) as backend,
    ):
        # a worker needs some milliseconds for such a task: hundreds of them are asked for without the usual pause
        backend._connection._transport.sleep = lambda seconds: time.sleep(min(seconds, 0.01))
        yield backend


@pytest.fixture(params=["process", "here"])
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.getfixturevalue(f"{request.param}_backend")
    return found


def make_pool(kind: str = "softmax", *, frames: int = 24, nulls: bool = True, seed: int = 0) -> Pool:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0 if nulls else 1, 6, (frames,), generator=generator)
    if nulls:
        counts[[3, 11]] = 0
    boxes = int(counts.sum())
    scores = torch.rand(boxes, generator=generator)
    scores[:6] = torch.tensor([0.0, 1.0, 0.5, 1 - 2**-24, 1e-45, 0.5])[: min(6, boxes)]
    probabilities = torch.rand(boxes, 5, generator=generator)
    vectors = torch.randn(4, 8, generator=generator)[torch.randint(0, 4, (boxes,), generator=generator)]
    # ids whose order differs from that of the rows, and some that need escaping
    names = [f'{"/".join(str(row * 7 % frames))}é"{row}' for row in range(frames)]
    return Pool(
        names,
        torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
        scores=scores,
        indices=torch.randperm(frames, generator=generator),
        labels=torch.randint(0, 5, (boxes,), generator=generator),
        probabilities={"softmax": probabilities.softmax(1), "sigmoid": probabilities, "scores": None}[kind],
        activation=None if kind == "scores" else kind,  # type: ignore[arg-type]
        box_embeddings=vectors + 0.1 * torch.randn(boxes, 8, generator=generator),
        frame_embeddings=torch.randn(frames, 3, generator=generator),
    )


def stage(strategy: str, n: int | None, **fields: object) -> DetectionSampling:
    return DetectionSampling.model_validate({"selection_strategy": strategy, "num_of_samples": n, **fields})


def assert_same(mine: Selection, theirs: Selection) -> None:
    assert theirs.frame_ids == mine.frame_ids
    assert theirs.rows.tolist() == mine.rows.tolist()
    torch.testing.assert_close(theirs.scores, mine.scores, rtol=0, atol=0, equal_nan=True)
    assert theirs.stages == mine.stages
    assert theirs.estimated_boxes is not None
    assert mine.estimated_boxes is not None
    assert theirs.estimated_boxes.tolist() == mine.estimated_boxes.tolist()
    assert theirs.indices is not None
    assert mine.indices is not None
    assert theirs.indices.tolist() == mine.indices.tolist()


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "scores"])
@pytest.mark.parametrize("strategy", UNCERTAINTY_STRATEGIES)
def test_uncertainty(backend: Backend, kind: str, strategy: str) -> None:
    pool = make_pool(kind)
    ways = [("min", None), ("max", "ascending"), ("mean", "descending"), ("sum", "ascending"), (None, "descending")]
    for (policy, sort), n in itertools.product(ways, (5, len(pool))):
        stages = stage(strategy, n, bbox_selection_policy=policy, sort_strategy=sort)
        assert_same(LocalBackend().select(pool, stages), backend.select(pool, stages))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "scores"])
@pytest.mark.parametrize("strategy", ["least", "margin", "ratio", "entropy"])
def test_weights_of_classes(backend: Backend, kind: str, strategy: str) -> None:
    pool = make_pool(kind)
    for policy, weights in itertools.product(("min", "max", "mean", "sum"), ({}, {0: 0, 2: 3.5, 4: 0.1, -7: 2})):
        stages = stage(strategy, 9, bbox_selection_policy=policy, class_weights=weights, null_policy="last")
        assert_same(LocalBackend().select(pool, stages), backend.select(pool, stages))


@pytest.mark.parametrize("strategy", SERVED)
@pytest.mark.parametrize("policy", ["protocol", "skip", "last", "sample"])
def test_frames_without_boxes(backend: Backend, strategy: str, policy: str) -> None:
    pool = make_pool()
    for n in (4, 22):
        stages = stage(strategy, n, null_policy=policy, seed=5)
        assert_same(LocalBackend().select(pool, stages), backend.select(pool, stages))


@pytest.mark.parametrize("strategy", sorted(set(SERVED) - set(UNCERTAINTY_STRATEGIES)))
@pytest.mark.parametrize("columns", ["both", "boxes", "frames", "no labels", "no scores", "half", "wide"])
def test_other_strategies_over_whatever_columns_there_are(backend: Backend, strategy: str, columns: str) -> None:
    pool = make_pool()
    pool = {
        "both": pool,
        "boxes": pool.replace(frame_embeddings=None),
        "frames": pool.replace(box_embeddings=None),
        "no labels": pool.replace(labels=None),
        "no scores": pool.replace(scores=None),
        "half": pool.replace(box_embeddings=pool.box_embeddings.half(), frame_embeddings=pool.frame_embeddings.half()),  # type: ignore[union-attr]
        "wide": pool.replace(frame_embeddings=torch.cat([pool.frame_embeddings] * 4, 1)),  # type: ignore[list-item]
    }[columns]
    for clusters, seed in ((-1, 0), (3, 7)):
        stages = stage(strategy, 7, num_of_clusters=clusters, seed=seed)
        if (strategy in ON_OBJECTS and columns in ("frames", "no labels")) or (
            strategy == "auto" and columns == "no labels"
        ):
            for each in (LocalBackend(), backend):
                with pytest.raises(InvalidInputError, match=r"needs the column `(box_embeddings|labels)`"):
                    each.select(pool, stages)
            continue
        assert_same(LocalBackend().select(pool, stages), backend.select(pool, stages))


@pytest.mark.parametrize("strategy", sorted(ON_OBJECTS))
@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "scores"])
@pytest.mark.parametrize("first", [None, "entropy", "random", "clustering"])
def test_strategies_on_objects(backend: Backend, strategy: str, kind: str, first: str | None) -> None:
    pool = make_pool(kind, seed=3)
    stages = [stage(strategy, 6, seed=2)] if first is None else [stage(first, 16), stage(strategy, 6, seed=2)]
    assert_same(LocalBackend().select(pool, stages), backend.select(pool, stages))


CONSTRAINED: dict[str, dict[str, object]] = {
    "boxes": {"n": None, "num_of_boxes": 9.5},
    "frames and boxes": {"n": 6, "num_of_boxes": 9.5},
    "minutes": {"n": None, "num_of_boxes": 20, "num_of_minutes": 4, "seconds_per_frame": 10, "seconds_per_box": 5},
    "minutes as published": {"n": None, "num_of_minutes": 3.5},
    "one dear frame": {"n": None, "num_of_boxes": 0.01},
    "distance": {"n": 8, "min_distance": 0.8},
    "too few are apart": {"n": 20, "min_distance": 1.3},
    "boxes apart": {"n": None, "num_of_boxes": 20, "min_distance": 1.0},
    "quotas": {"n": 8, "class_quotas": {3: 2, 4: 4}},
    "too many quotas": {"n": 8, "class_quotas": {0: 30, 9: 1}},
    "all of it": {"n": 12, "num_of_boxes": 20, "min_distance": 0.5, "class_quotas": {1: 3, 2: 2}},
}


@pytest.mark.parametrize("strategy", ["entropy", "probability", "random", "clustering", "k_center"])
@pytest.mark.parametrize("name", CONSTRAINED)
def test_constraints(backend: Backend, strategy: str, name: str) -> None:
    options = dict(CONSTRAINED[name])
    if strategy in ("clustering", "k_center"):
        options.pop("class_quotas", None)
    pool = make_pool()
    for policy in ("protocol", "sample"):
        stages = stage(strategy, null_policy=policy, seed=5, **options)  # type: ignore[arg-type]
        chosen, messages = [], []
        for each in (LocalBackend(), backend):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                chosen.append(each.select(pool, stages))
            messages.append({str(warning.message) for warning in caught})
        assert_same(*chosen)
        assert messages[0] == messages[1]


ANNOTATED: dict[str, dict[str, object]] = {
    "nothing": {},
    "frames": {"frames": 9},
    "a frame without boxes": {"rows": [3]},
    "objects": {"counts": {0: 3, 1: 0.25, 4: 7, 99: 1}},
    "frames and objects": {"frames": 9, "counts": {}},
}


def known_to(annotated: dict[str, Any], kind: str) -> dict[str, Any]:
    """What backends are told of what is annotated."""
    others = make_pool(kind, frames=31, seed=8)
    others = others.replace(frame_ids=[f"labeled {name}" for name in others.frame_ids])
    rows = annotated.get("rows") or list(range(annotated.get("frames", 0)))
    return {"labeled": others.take(rows) if rows else None, "labeled_counts": annotated.get("counts")}


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "softmax") for name in ANNOTATED), ("frames", "sigmoid"), ("frames", "scores")]
)
def test_what_is_annotated_is_known_to_every_backend(
    backend: RestBackend, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    pool, known = make_pool(kind, seed=4), known_to(ANNOTATED[name], kind)
    mine = LocalBackend(**known)
    for field, value in known.items():
        monkeypatch.setattr(backend, field, value)
    asked = [
        [stage("auto", 8)],
        [stage("auto", None, num_of_boxes=20, min_distance=1.0, null_policy="last")],
        [stage("auto", None, num_of_minutes=3.5)],
        [stage("entropy", 16, class_quotas={1: 3}, min_distance=0.3), stage("auto", 8, class_quotas={1: 2, 3: 2})],
        [stage("k_center", 9), stage("clustering", 7), stage("ppal", 4)],
    ]
    for stages in asked:
        assert_same(mine.select(pool, stages), backend.select(pool, stages))
    if known["labeled"] is not None and len(known["labeled"]) > 1:
        assert mine.select(pool, asked[0]).frame_ids != LocalBackend().select(pool, asked[0]).frame_ids
    for column in ("frame_embeddings", "box_embeddings"):
        some: dict[str, Any] = {column: None}
        labeled = None if known["labeled"] is None else known["labeled"].replace(**some)
        if labeled is not None and labeled.num_boxes == 0 and labeled.frame_embeddings is None:
            continue  # nothing is left to look at
        monkeypatch.setattr(backend, "labeled", labeled)
        local = LocalBackend(labeled=labeled, labeled_counts=known["labeled_counts"])
        assert_same(local.select(pool.replace(**some), asked[0]), backend.select(pool.replace(**some), asked[0]))


PIPELINES = {
    "entropy, clustering": [stage("entropy", 14, bbox_selection_policy="sum"), stage("clustering", 5)],
    "margin, hierarchical": [stage("margin", 12, sort_strategy="ascending"), stage("hierarchical", 6, seed=3)],
    "random, least, clustering": [stage("random", 20, seed=2), stage("least", 9), stage("clustering", 4)],
    "clustering, ratio": [stage("clustering", 12), stage("ratio", 3, bbox_selection_policy="mean")],
    "null policies": [stage("entropy", 15, null_policy="sample"), stage("clustering", 8, null_policy="last")],
    "two diversities": [stage("entropy", 16), stage("clustering", 10), stage("hierarchical", 5)],
    "weights": [stage("entropy", 10, probs_weights=[0.5, 1, 2, 0, 1]), stage("clustering", 5)],
    "weights of classes": [
        stage("entropy", 12, bbox_selection_policy="sum", class_weights={0: 0.2, 3: 4, 77: 9}),
        stage("weighted_kmeans", 5),
    ],
    "objects": [stage("entropy", 16, bbox_selection_policy="sum"), stage("ppal", 9), stage("diverse_prototypes", 4)],
    "constraints": [
        stage("entropy", None, num_of_boxes=25, min_distance=0.4, class_quotas={1: 3}),
        stage("weighted_kmeans", None, num_of_boxes=8, min_distance=0.8),
    ],
    "a distance by weights": [stage("margin", 18, sort_strategy="ascending"), stage("k_center", 6, min_distance=1.2)],
    "all of them": [stage("probability", 100), stage("entropy", 100)],
}


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("name", PIPELINES)
def test_stage_lists(backend: Backend, name: str, kind: str) -> None:
    pool = make_pool(kind, seed=len(name))
    assert_same(LocalBackend().select(pool, PIPELINES[name]), backend.select(pool, PIPELINES[name]))


@pytest.mark.parametrize("strategy", ["entropy", "clustering", "hierarchical", "random", *sorted(ON_OBJECTS)])
@pytest.mark.parametrize("frames", [1, 5])
def test_pools_of_nothing_but_frames_without_boxes(backend: Backend, strategy: str, frames: int) -> None:
    pool = make_pool(frames=24).take([3, 11]) if frames == 1 else make_pool(frames=24)
    rows = (pool.counts == 0).nonzero().squeeze(1)
    empty = pool.take(rows[:frames])
    stages = stage(strategy, 3)
    assert_same(LocalBackend().select(empty, stages), backend.select(empty, stages))


def test_the_order_of_frames_does_not_matter(backend: Backend) -> None:
    pool = make_pool()
    shuffled = pool.take(torch.randperm(len(pool), generator=torch.Generator().manual_seed(1)))
    for stages in PIPELINES.values():
        if stages[0].probs_weights is None:
            assert backend.select(shuffled, stages).frame_ids == LocalBackend().select(pool, stages).frame_ids


BAD = {
    "no stages": (make_pool(), []),
    "no frames": (make_pool().take([]), stage("entropy", 1)),
    "no nulls wanted": (make_pool(), stage("entropy", 1, use_null_detections=False)),
    "no scores": (make_pool("scores").replace(scores=None), stage("entropy", 1)),
    "no embeddings": (make_pool().replace(box_embeddings=None, frame_embeddings=None), stage("clustering", 1)),
    "no boxes' embeddings": (make_pool().replace(box_embeddings=None), stage("ppal", 1)),
    "no labels": (make_pool().replace(labels=None), stage("diverse_prototypes", 1)),
    "no doubts": (make_pool("scores").replace(scores=None), stage("diverse_prototypes", 1)),
    "weights of another length": (make_pool(), stage("entropy", 1, probs_weights=[1.0])),
    "weights of classes for what has none": (make_pool(), stage("probability", 1, class_weights={1: 2})),
    "weights of classes for diversity": (make_pool(), stage("clustering", 1, class_weights={1: 2})),
    "weights of classes without labels": (make_pool().replace(labels=None), stage("least", 1, class_weights={1: 2})),
    "classes balanced against nothing": (make_pool(), stage("entropy", 1, class_weights="balanced")),
    "quotas without labels": (make_pool().replace(labels=None), stage("entropy", 1, class_quotas={1: 1})),
    "quotas of diversity": (make_pool(), stage("clustering", 1, class_quotas={1: 1})),
    "no embeddings to keep a distance by": (
        make_pool().replace(box_embeddings=None, frame_embeddings=None),
        stage("entropy", 1, min_distance=0.1),
    ),
    "frames on a stage": (
        make_pool(),
        DetectionSamplingRequest(selection_strategy="entropy", num_of_samples=1, frames=[]),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_done_is_the_same_kind_of_error(backend: Backend, name: str) -> None:
    pool, stages = BAD[name]
    with pytest.raises(InvalidInputError) as mine:
        LocalBackend().select(pool, stages)
    with pytest.raises(CvalError) as theirs:
        backend.select(pool, stages)
    assert isinstance(theirs.value, InvalidInputError), (mine.value, theirs.value)


def test_asking_for_more_than_there_is_warns_the_same(backend: Backend) -> None:
    pool = make_pool()
    messages = []
    for each in (LocalBackend(), backend):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert len(each.select(pool, stage("entropy", 1000))) == len(pool)
        messages.append([str(warning.message) for warning in caught])
    assert messages[0] == messages[1] != []
