"""Pictures that `cval-torch quickstart` draws (`draw_picture`), and what it says of them."""

from __future__ import annotations

from pathlib import Path

import torch

from cval_torch.cli.drawn import CLASSES, draw_picture, write_annotations
from cval_torch.formats import load_coco, read_image


def test_what_is_drawn_is_where_it_is_said_to_be(tmp_path: Path) -> None:
    targets = [draw_picture(tmp_path / f"{number:03d}.png", number) for number in range(12)]
    assert {label for target in targets for label in target["labels"].tolist()} == set(CLASSES)
    for number, target in enumerate(targets):
        image = read_image(tmp_path / f"{number:03d}.png") * 255
        noise = ((image >= 90) & (image < 140)).all(dim=0)
        inside = torch.zeros_like(noise)
        for x0, y0, x1, y1 in target["boxes"].int().tolist():
            inside[y0 : y1 + 1, x0 : x1 + 1] = True
            assert not noise[(y0 + y1) // 2, (x0 + x1) // 2]
        assert noise[~inside].all()


def test_the_first_pictures_are_annotated(tmp_path: Path) -> None:
    targets = [draw_picture(tmp_path / f"{number:03d}.png", number) for number in range(5)]
    write_annotations(tmp_path / "labeled.json", targets[:3])
    read = load_coco(tmp_path / "labeled.json")
    assert list(read.file_names) == ["000.png", "001.png", "002.png"]
    torch.testing.assert_close(read.boxes, torch.cat([target["boxes"] for target in targets[:3]]))
    assert read.labels.tolist() == torch.cat([target["labels"] for target in targets[:3]]).tolist()
    assert dict(read.class_names) == CLASSES
