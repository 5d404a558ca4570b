"""Rounds in the real packages, offline, and read back from what they wrote."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shades import Tiny, make, train_epoch
from wandb_file import history

from cval_torch.training import SamplerCallback
from cval_torch.training.logger_adapters import (
    ROUND,
    CsvRounds,
    LazyRounds,
    MlflowRounds,
    TensorBoardRounds,
    WandbRounds,
)
from cval_torch.training.loggers import as_round_logger

SCALARS = ("chosen_frames", "labeled_frames", "frames_left", "estimated_boxes")


def two_rounds(logger: Any) -> SamplerCallback:
    """Two choices of three frames, from twenty of which three are labelled."""
    sampler = make(loggers=[logger])
    model = Tiny()
    for epoch in range(2):
        train_epoch(model, sampler.labels.labeled)
        assert sampler.on_epoch_end(model, epoch) is not None
    return sampler


def expected_scalars(sampler: SamplerCallback) -> dict[str, list[float]]:
    """By name, of both rounds, from the record that the labels keep."""
    first, second = sampler.labels.rounds[-2:]
    assert first.scores is not None
    assert second.scores is not None
    return {
        "rounds/chosen_frames": [3, 3],
        "rounds/labeled_frames": [3, 6],
        "rounds/frames_left": [14, 11],
        "rounds/epoch": [0, 1],
    }


@pytest.fixture
def mlflow_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a store that needs no database
    import mlflow

    uri, before = f"file://{tmp_path}/mlflow", mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield uri
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(before)


@pytest.fixture
def wandb_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("CACHE_DIR", "CONFIG_DIR", "DATA_DIR", "ARTIFACT_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / name.lower()))
    import wandb

    run = wandb.init(mode="offline", dir=tmp_path, project="rounds", settings=wandb.Settings(x_disable_stats=True))
    yield run
    run.finish()


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0, "scalars": 0, "histograms": 0})
    return found.Reload()


def check_tensorboard(folder: Path, sampler: SamplerCallback) -> None:
    found = events(folder)
    for name, values in expected_scalars(sampler).items():
        logged = found.Scalars(name)
        assert ([each.step for each in logged], [each.value for each in logged]) == ([1, 2], values)
    boxes = [each.value for each in found.Scalars("rounds/estimated_boxes")]
    assert [each.value for each in found.Scalars("rounds/classes/0")] == pytest.approx(boxes)
    histogram = found.Histograms("rounds/scores")[1]
    assert histogram.step == 2
    assert histogram.histogram_value.num == 3
    assert histogram.histogram_value.sum == pytest.approx(sum(sampler.labels.rounds[-1].scores or ()))
    picture = found.Images("rounds/chosen")[0]
    assert picture.width > 3 * 224
    text = found.Tensors("rounds/frames/text_summary")[0].tensor_proto.string_val[0].decode()
    lines = text.splitlines()
    assert lines[0] == "| rank | frame_id | score | estimated_boxes |"
    assert [line.split(" | ")[1] for line in lines[2:]] == list(sampler.labels.rounds[-2].frame_ids)


def test_tensorboard(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        assert isinstance(as_round_logger(writer), TensorBoardRounds)
        sampler = two_rounds(writer)
    check_tensorboard(tmp_path, sampler)


def test_cells_that_hold_bars_stay_cells(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        TensorBoardRounds(writer).table("t", ["a", "b"], [["x|y", 0.25]], step=4)
    [entry] = events(tmp_path).Tensors("t/text_summary")
    assert entry.step == 4
    assert entry.tensor_proto.string_val[0].decode().splitlines()[2] == "| x\\|y | 0.25 |"


def check_wandb(folder: Path, sampler: SamplerCallback) -> None:
    rows = [row for row in history(folder) if ROUND in row]
    assert [row[ROUND] for row in rows] == [1, 2]
    for name, values in expected_scalars(sampler).items():
        assert [row[name] for row in rows] == values, name
    for row in rows:
        assert row["rounds/scores"]["_type"] == "histogram"
        assert sum(row["rounds/scores"]["values"]) == 3
        assert row["rounds/chosen"]["_type"] == "image-file"
        [picture] = folder.glob(f"**/files/{row['rounds/chosen']['path']}")
        with Image.open(picture) as image:
            assert image.width > 3 * 224
    [table] = folder.glob(f"**/files/{rows[1]['rounds/frames']['path']}")
    content = json.loads(table.read_text())
    assert content["columns"] == ["rank", "frame_id", "score", "estimated_boxes"]
    assert [cells[1] for cells in content["data"]] == list(sampler.labels.rounds[-1].frame_ids)


def test_wandb(wandb_run: Any, tmp_path: Path) -> None:
    assert isinstance(as_round_logger(wandb_run), WandbRounds)
    sampler = two_rounds(wandb_run)
    wandb_run.finish()
    check_wandb(tmp_path, sampler)


@pytest.mark.parametrize("explicit", [True, False])
def test_wandb_keeps_what_the_training_logs(wandb_run: Any, tmp_path: Path, explicit: bool) -> None:
    """Before, between and after rounds, also where a training logs one step in several calls around a round."""
    rounds = WandbRounds(wandb_run)
    for step in range(1, 5):
        at = {"step": step * 10} if explicit else {}
        wandb_run.log({"loss": 1 / step}, **at)
        if step != 3:
            rounds.scalars({"rounds/chosen_frames": step}, step=step)
        wandb_run.log({"map": step / 10}, **at)
    wandb_run.finish()
    rows = history(tmp_path)
    assert [row["loss"] for row in rows if "loss" in row] == [1, 1 / 2, 1 / 3, 1 / 4]
    assert [row["map"] for row in rows if "map" in row] == [0.1, 0.2, 0.3, 0.4]
    assert [row["rounds/chosen_frames"] for row in rows if ROUND in row] == [1, 2, 4]
    if explicit:
        assert [row["_step"] for row in rows] == [10, 20, 30, 40]


def test_an_artifact_of_wandb_has_the_file(wandb_run: Any, tmp_path: Path) -> None:
    written = tmp_path / "round-0001.csv"
    written.write_text("rank\n1\n")
    logged = []
    original = wandb_run.log_artifact
    wandb_run.log_artifact = lambda *given, **named: logged.append(original(*given, **named))
    WandbRounds(wandb_run).file("rounds", written, step=1)
    [artifact] = logged
    assert (artifact.name.partition(":")[0], artifact.type) == (f"{wandb_run.id}-rounds", "rounds")
    assert list(artifact.manifest.entries) == ["round-0001.csv"]


def check_mlflow(client: Any, run_id: str, sampler: SamplerCallback, folder: Path) -> None:
    for name, values in expected_scalars(sampler).items():
        logged = client.get_metric_history(run_id, name)
        assert ([each.step for each in logged], [each.value for each in logged]) == ([1, 2], values)
    first, second = sampler.labels.rounds[-2:]
    assert [each.value for each in client.get_metric_history(run_id, "rounds/scores/max")] == pytest.approx(
        [max(first.scores or ()), max(second.scores or ())]
    )
    tables = [each.path for each in client.list_artifacts(run_id, "rounds") if each.path.endswith(".json")]
    assert sorted(tables) == ["rounds/frames-0001.json", "rounds/frames-0002.json"]
    content = json.loads(Path(client.download_artifacts(run_id, "rounds/frames-0002.json", folder)).read_text())
    assert [row[1] for row in content["data"]] == list(second.frame_ids)
    with Path(client.download_artifacts(run_id, "rounds/round-0001.csv", folder)).open(newline="") as file:
        assert [row["frame_id"] for row in csv.DictReader(file)] == list(first.frame_ids)
    pictures = [each.path for each in client.list_artifacts(run_id, "images") if each.path.endswith(".png")]
    assert len(pictures) == 2
    with Image.open(client.download_artifacts(run_id, pictures[0], folder)) as picture:
        assert picture.width > 3 * 224


@pytest.mark.parametrize("way", ["run", "ended run", "client and id"])
def test_mlflow(way: str, mlflow_uri: str, tmp_path: Path) -> None:
    import mlflow

    run, client = mlflow.start_run(), mlflow.MlflowClient()
    given: Any = (client, run.info.run_id) if way == "client and id" else run
    if way == "ended run":
        mlflow.end_run()
        given = client.get_run(run.info.run_id)
    assert isinstance(as_round_logger(given), MlflowRounds)
    sampler = two_rounds(given)
    (tmp_path / "downloads").mkdir()
    check_mlflow(client, run.info.run_id, sampler, tmp_path / "downloads")
    assert len(client.search_runs(["0"])) == 1  # no run of our own


def test_scores_that_there_are_not_are_null_in_json(mlflow_uri: str, tmp_path: Path) -> None:
    import mlflow

    with mlflow.start_run() as run:
        MlflowRounds.of_run(run).table("t", ["a", "b"], [["x", float("nan")]], step=1)
    found = Path(mlflow.MlflowClient().download_artifacts(run.info.run_id, "t-0001.json", tmp_path))
    assert json.loads(found.read_text()) == {"columns": ["a", "b"], "data": [["x", None]]}


def test_lightning_tensorboard(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import TensorBoardLogger

    logger = TensorBoardLogger(tmp_path)
    assert isinstance(as_round_logger(logger), LazyRounds)
    assert logger._experiment is None  # what the user configured is opened by the first round
    sampler = two_rounds(logger)
    logger.finalize("success")
    check_tensorboard(Path(logger.log_dir), sampler)


def test_pytorch_lightning_is_told_as_lightning_is(tmp_path: Path) -> None:
    from pytorch_lightning.loggers import CSVLogger

    class Named(CSVLogger):
        """A subclass, as projects have them."""

    assert isinstance(as_round_logger(Named(tmp_path)), CsvRounds)


def test_lightning_csv(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(tmp_path)
    logger.log_metrics({"loss": 0.5}, step=0)
    logger.save()
    sampler = two_rounds(logger)
    logger.log_metrics({"loss": 0.25}, step=1)
    logger.save()
    with Path(logger.log_dir, "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["loss"] for row in rows if row["loss"]] == ["0.5", "0.25"]
    for name, values in expected_scalars(sampler).items():
        logged = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        assert logged == list(zip([1, 2], values, strict=True)), name
    assert sorted(path.name for path in Path(logger.log_dir, "rounds").iterdir()) == [
        f"round-{number:04d}.{suffix}" for number in (1, 2) for suffix in ("csv", "png")
    ]


def test_lightning_wandb(wandb_run: Any, tmp_path: Path) -> None:
    from lightning.pytorch.loggers import WandbLogger

    sampler = two_rounds(WandbLogger(experiment=wandb_run))
    wandb_run.finish()
    check_wandb(tmp_path, sampler)


def test_lightning_mlflow(mlflow_uri: str, tmp_path: Path) -> None:
    from lightning.pytorch.loggers import MLFlowLogger

    logger = MLFlowLogger(tracking_uri=mlflow_uri)
    sampler = two_rounds(logger)
    (tmp_path / "downloads").mkdir()
    check_mlflow(logger.experiment, str(logger.run_id), sampler, tmp_path / "downloads")


def test_a_picture_of_one_channel_is_logged_as_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 6), dtype=np.uint8)).save(tmp_path / "grey.png")

    class Writer:
        def add_image(self, name: str, picture: Any, *, global_step: int, dataformats: str) -> None:
            self.seen = (name, picture.shape, global_step, dataformats)

    writer = Writer()
    TensorBoardRounds(writer).image("a", tmp_path / "grey.png", step=3)
    assert writer.seen == ("a", (4, 6, 3), 3, "HWC")


def test_a_logger_is_opened_once() -> None:
    opened = []

    class Writer:
        def add_histogram(self, name: str, values: torch.Tensor, *, global_step: int) -> None: ...

    def open_it() -> TensorBoardRounds:
        opened.append(1)
        return TensorBoardRounds(Writer())

    lazy = LazyRounds(open_it)
    assert opened == []
    for step in (1, 2):
        lazy.histogram("a", torch.ones(2), step=step)
    assert opened == [1]
