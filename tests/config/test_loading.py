"""A configuration file, and what is said over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cval_torch.config import Config, load_config, named_configs
from cval_torch.errors import InvalidInputError


def written(folder: Path, text: str) -> Path:
    path = folder / "a.yaml"
    path.write_text(text)
    return path


def test_a_file_then_overrides_then_flags(tmp_path: Path) -> None:
    path = written(tmp_path, "source: photos\nmodel: a.pt\nbatch: 2\nseed: 5\nstages: [{num_of_samples: 10}]\n")
    config = load_config(path, ["batch=4", "workers=1", "stages.0.min_distance=1e-1"], values={"workers": 3})
    assert (config.batch, config.workers, config.seed) == (4, 3, 5)
    stage = config.sampling()[0]
    assert (stage.selection_strategy, stage.num_of_samples, stage.min_distance, stage.seed) == ("auto", 10, 0.1, 5)


def test_a_stage_keeps_a_seed_of_its_own() -> None:
    config = load_config(None, ["seed=5", "stages.0.num_of_samples=1", "stages.1.num_of_samples=1", "stages.1.seed=0"])
    assert [stage.seed for stage in config.sampling()] == [5, 0]


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("model=best.pt", {"path": "best.pt"}),
        ("model=./folder", {"path": "./folder"}),
        ("model=retinanet_resnet50_fpn", {"builder": "retinanet_resnet50_fpn"}),
    ],
)
def test_a_path_will_do(override: str, values: dict[str, str]) -> None:
    model = load_config(None, [override]).model
    assert model is not None
    assert model.model_dump(exclude_unset=True) == values


def test_a_section_can_be_added_to_what_stood_for_it() -> None:
    config = load_config(None, ["source=clips", "source.rate=2"])
    assert config.source is not None
    assert (config.source.path, config.source.rate) == ("clips", 2)
    config = load_config(None, ["stages.0.num_of_samples=3", "stages.0.class_quotas.7=2", "class_names.7=bolt"])
    assert config.stages[0].class_quotas == {7: 2}
    assert config.class_names == {7: "bolt"}


def test_another_path_leaves_the_rest_as_it_was(tmp_path: Path) -> None:
    path = written(tmp_path, "source: {path: clips, rate: 2}\nmodel: {builder: x_net, checkpoint: a.pt}\n")
    config = load_config(path, values={"source": "others", "model": "y_net"})
    assert config.source is not None
    assert config.model is not None
    assert (config.source.path, config.source.rate) == ("others", 2)
    assert (config.model.builder, config.model.checkpoint) == ("y_net", "a.pt")
    config = load_config(None, ["source.images=photos"], values={"source": "list.txt"})
    assert config.source is not None
    assert (config.source.path, config.source.images) == ("list.txt", "photos")
    path = written(tmp_path, "source: {factory: 'a:b'}\n")
    config = load_config(path, values={"source": "photos"})
    assert config.source is not None
    assert (config.source.path, config.source.factory) == ("photos", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sorce: x", "a.yaml: 'sorce' is not known. Did you mean 'source'?"),
        (
            "stages: [{num_of_sample: 3}]",
            r"a.yaml: 'stages.0.num_of_sample' is not known. Did you mean 'num_of_samples'",
        ),
        ("output: {imges: copy}", r"a.yaml: 'output.imges' is not known. Did you mean 'images'"),
        ("batch: many", r"a.yaml: batch: .*valid integer; got 'many'"),
        ("batch: true", "a.yaml: batch: .*valid integer"),
        ("batch: '8'", "a.yaml: batch: .*valid integer"),
        ("stages: [{selection_strategy: entropy}]", r"a.yaml: stages.0.* must be given; got none of them"),
        ("stages: [{num_of_samples: 0}]", r"a.yaml: stages.0.num_of_samples: .*greater than or equal to 1; got 0"),
        ("source: {path: x, tile: 64, overlap: 64}", "a.yaml: source: `overlap` must be less than `tile`"),
        ("source: {}", "a.yaml: source: exactly one of `path` or `factory`"),
        ("model: {path: a.pt, checkpoint: b.pt}", "a.yaml: model: `checkpoint` is for a torchvision `builder`"),
        ("output: {export: [voc]}", r"a.yaml: output.export.0: .*'coco'.*got 'voc'"),
        ("version: 2", "a.yaml has the version 2, and this is"),
        ("[1]", "a.yaml must have keys and values"),
        ("text", "a.yaml must have keys and values"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load_config(written(tmp_path, text))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch", "must be `key=value`"),
        ("=3", "must be `key=value`"),
        ("stages.1.num_of_samples=3", "names number '1' of a list of 0"),
        ("batch.x=3", "'batch.x' is not known|leads into|batch"),
        ("stages.x=3", "names number 'x' of a list of 0"),
    ],
)
def test_overrides_that_lead_nowhere(override: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load_config(None, [override])


def test_configurations_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config("rare_classes")
    assert config.stages[0].class_weights == "balanced"
    with pytest.raises(InvalidInputError, match=r"no configuration 'rare_clases'\. Did you mean 'rare_classes'"):
        load_config("rare_clases")
    with pytest.raises(InvalidInputError, match=r"no configuration 'gone/rare_classes.yaml'"):
        load_config("gone/rare_classes.yaml")
    (tmp_path / "rare_classes").write_text("batch: 3")
    assert load_config("rare_classes").batch == 3, "a file of the user's comes first"


@pytest.mark.parametrize("name", named_configs())
def test_each_of_them_can_be_used(name: str) -> None:
    config = load_config(name)
    assert isinstance(config, Config)
    assert config.source is not None
    assert config.model is not None
    assert config.sampling() or name == "compare"
