"""Files of the outside world: images, annotation tools' formats both ways, and which image a file means by a path."""

from cval_torch.formats.annotations import Annotations
from cval_torch.formats.by_name import load_annotations
from cval_torch.formats.coco import load_coco, save_coco
from cval_torch.formats.coco_instances import CocoInstances, load_coco_instances
from cval_torch.formats.coco_results import load_coco_results
from cval_torch.formats.csv_table import load_csv, save_csv
from cval_torch.formats.cvat import load_cvat, save_cvat
from cval_torch.formats.images import ImageFolder, collate_images, list_images, read_image
from cval_torch.formats.label_studio import load_label_studio, save_label_studio
from cval_torch.formats.matching import PathMatches, match_paths
from cval_torch.formats.plain_list import load_list, save_list
from cval_torch.formats.video import VideoFrames
from cval_torch.formats.yolo import load_yolo, save_yolo

__all__ = [
    "Annotations",
    "CocoInstances",
    "ImageFolder",
    "PathMatches",
    "VideoFrames",
    "collate_images",
    "list_images",
    "load_annotations",
    "load_coco",
    "load_coco_instances",
    "load_coco_results",
    "load_csv",
    "load_cvat",
    "load_label_studio",
    "load_list",
    "load_yolo",
    "match_paths",
    "read_image",
    "save_coco",
    "save_csv",
    "save_cvat",
    "save_label_studio",
    "save_list",
    "save_yolo",
]
