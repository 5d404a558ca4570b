"""Every flow of the public notebook of `cval-lib`, one function a flow, written for `cval-lib`.

As a script, `python notebook_flows.py URL`, it runs with `cval-lib` itself against the server at URL.
`test_notebook.py` also runs its text with nothing changed but the imports.
"""

# No future imports and no newer syntax: `cval-lib` runs this file under pydantic 1.
import math
import random
import sys
import time
import uuid

from cval_lib.connection import CVALConnection
from cval_lib.models.detection import BBoxScores, DetectionSamplingOnPremise, FramePrediction
from cval_lib.models.embedding import EmbeddingModel, FrameEmbeddingModel

API_KEY = "USER_API_KEY"


def name() -> str:
    return uuid.uuid4().hex


def vector(size: int = 500) -> list:
    return [random.random() for _ in range(size)]


def polled(read):
    """Ask again and again, ever more slowly, until there is a result."""
    pause = 0.02
    while True:
        result = read()
        if result is not None:
            return result
        time.sleep(pause)
        pause = min(2 * pause, 0.1)


def datasets(cval) -> str:
    """Create, update, read and list: the dataset object remembers its id."""
    dataset_id = cval.dataset().create(name="on-premise-scheme-ds", description="")
    one = cval.dataset()
    print(one.update(dataset_id, description="any123 string data", name="sample name"))
    print(one.get())
    print(*cval.dataset().get_all(0))
    return dataset_id


def embeddings(cval, dataset_id: str):
    """A hundred frames with one embedding each, as models."""
    frames = tuple(
        FrameEmbeddingModel(frame_id=name(), embeddings=[EmbeddingModel(embedding_id=name(), embedding=vector())])
        for _ in range(100)
    )
    stored = cval.embedding(dataset_id, "training")
    stored.upload_many(frames)
    print(stored.get_many())
    print(stored.get_meta())
    return stored


def answered_at_once(cval) -> list:
    """Ten frames as models; more frames are asked for than there are."""
    frames = [
        FramePrediction(
            frame_id=name(), predictions=[BBoxScores(category_id=1, score=random.random()) for _ in range(10)]
        )
        for _ in range(10)
    ]
    request = DetectionSamplingOnPremise(
        num_of_samples=200,
        bbox_selection_policy="min",
        selection_strategy="margin",
        sort_strategy="ascending",
        frames=frames,
    )
    task = cval.detection().on_premise_sampling(request)
    print(task)
    return task.result


def answered_later(cval) -> list:
    """Twenty thousand boxes are a task; the detection object remembers it."""
    frames = [
        FramePrediction(
            frame_id=name(),
            predictions=[BBoxScores(category_id=random.randint(0, 3), score=random.random()) for _ in range(10)],
        )
        for _ in range(2000)
    ]
    detection = cval.detection()
    task = detection.on_premise_sampling(
        DetectionSamplingOnPremise(
            num_of_samples=200,
            bbox_selection_policy="min",
            selection_strategy="margin",
            sort_strategy="ascending",
            frames=frames,
        )
    )
    assert task.result is None
    return polled(lambda: detection.result.get().result)


def predictions(frames: int, boxes: int, last_category: int) -> list:
    """Frames as plain dicts, each box with an embedding's id."""
    return [
        {
            "frame_id": name(),
            "predictions": [
                {
                    "embedding_id": name(),
                    "score": math.cos(random.random()),
                    "category_id": random.randint(0, last_category),
                }
                for _ in range(boxes)
            ],
        }
        for _ in range(frames)
    ]


def embeddings_of(frames: list) -> list:
    return [
        FrameEmbeddingModel(
            frame_id=frame["frame_id"],
            embeddings=[
                EmbeddingModel(embedding_id=box["embedding_id"], embedding=vector()) for box in frame["predictions"]
            ],
        )
        for frame in frames
    ]


def clustered(cval) -> list:
    """Upload embeddings, then choose among the frames that they belong to."""
    frames = predictions(100, 1, 1)
    dataset_id = cval.dataset().create(name="asd", description="1a2")
    print(cval.embedding(dataset_id=dataset_id, part_of_dataset="training").upload_many(embeddings_of(frames)))
    task_id = (
        cval.detection()
        .on_premise_sampling(
            DetectionSamplingOnPremise(
                num_of_samples=20,
                dataset_id=dataset_id,
                selection_strategy="clustering",
                frames=frames,
                bbox_selection_policy="sum",
            )
        )
        .task_id
    )
    return polled(lambda: cval.result().get(task_id).result)


def combined(cval) -> tuple:
    """Two methods: by entropy first, and of these frames, once they have embeddings, by clusters."""
    frames = predictions(500, 14, 1)
    dataset_id = cval.dataset().create(name="asd", description="1a2")
    task_id = (
        cval.detection()
        .on_premise_sampling(
            DetectionSamplingOnPremise(
                num_of_samples=20,
                dataset_id=dataset_id,
                selection_strategy="entropy",
                sort_strategy="ascending",
                bbox_selection_policy="sum",
                frames=frames,
            )
        )
        .task_id
    )
    first = polled(lambda: cval.result().get(task_id).result)
    kept = [frame for frame in frames if frame["frame_id"] in first]
    cval.embedding(dataset_id=dataset_id, part_of_dataset="training").upload_many(embeddings_of(kept))
    task_id = (
        cval.detection()
        .on_premise_sampling(
            DetectionSamplingOnPremise(
                num_of_samples=2, dataset_id=dataset_id, selection_strategy="clustering", frames=kept
            )
        )
        .task_id
    )
    return dataset_id, first, polled(lambda: cval.result().get(task_id).result)


def raised(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def all_flows_of_the_public_client(url: str) -> None:
    """All of the above, and what else the public client can ask: one embedding, deleting, lists of results, errors."""
    from cval_lib.configs.main_config import MainConfig
    from cval_lib.utils.exceptions import NotFound, SchemaException

    MainConfig.main_url = url
    cval = CVALConnection(API_KEY)
    stored = embeddings(cval, datasets(cval))
    first = stored.get_many()[0]
    one = stored.get_by_id(first.frame_id, first.embeddings[0].embedding_id)  # its path has a doubled slash
    assert one == first
    stored.delete_by_id(first.frame_id)
    assert len(stored.get_meta().frames) == 99
    stored.delete_all()
    assert stored.get_many() == []
    assert cval.dataset().get_all(name="sample")[0].dataset_name == "sample name"
    assert len(set(answered_at_once(cval))) == 10
    assert len(set(answered_later(cval))) == 200
    assert len(set(clustered(cval))) == 20
    dataset_id, by_entropy, chosen = combined(cval)
    assert len(set(by_entropy)) == 20
    assert len(set(chosen)) == 2
    assert set(chosen) <= set(by_entropy)
    assert len(cval.result().get_many()) == 5
    assert len(cval.result().get_many(dataset_id=dataset_id)) == 2
    for call, kind in [
        (lambda: cval.dataset().get("nope"), NotFound),
        (lambda: cval.result().get("nope"), NotFound),
        (lambda: cval.detection().on_premise_sampling({"frames": []}), SchemaException),
    ]:
        assert "detail" in str(raised(kind, call))
    print("all flows ran:", len(chosen))


if __name__ == "__main__":
    all_flows_of_the_public_client(sys.argv[1])
