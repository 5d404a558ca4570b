"""What Label Studio is set up with: the labelling interface, how it reaches images, and how a person goes about it."""

from __future__ import annotations

import colorsys
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from cval_torch.errors import InvalidInputError

CONTROL, IMAGE = "label", "image"
"""Names of the tags for boxes and for the image; the image stands under the second one in a task's data, too."""

_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REMOTE = re.compile(r"(?:https?|s3|gs|azure-blob)://.", re.IGNORECASE)
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Served:
    """How Label Studio reaches the images of an export.

    Attributes:
        urls: F values of `data.image`.
        root: what LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT must be; None if no image is a local file.
        storages: the folders below `root` that become a source storage of the project each.
    """

    urls: tuple[str, ...]
    root: Path | None
    storages: tuple[Path, ...]


def serve(
    paths: Sequence[str | Path],
    frame_names: Sequence[str],
    root: str | os.PathLike[str] | None,
    *,
    within: Path | None = None,
) -> Served:
    """Find the document root and the storages for images.

    Args:
        paths: F absolute paths, or URLs that need no root.
        frame_names: what to call the frames in messages.
        root: the document root that a user wants; None: the parent of the folder that holds all images.
        within: that folder; None: the one furthest down.

    Raises:
        InvalidInputError: an image that is not below a folder in `root`; no folder that holds all images but the root
            of the file system.
    """
    files = {row: Path(path) for row, path in enumerate(paths) if not is_remote(path)}
    if not files:
        return Served(tuple(map(str, paths)), None, ())
    shared = within or Path(os.path.commonpath([path.parent for path in files.values()]))
    if root is None and shared == shared.parent:
        raise InvalidInputError(
            "no folder holds all images, and Label Studio serves files below one document root. Put the images into "
            "the export by `images='copy'`, or give the `document_root`, such as '/'"
        )
    base = shared.parent if root is None else Path(os.path.abspath(root))  # noqa: PTH100, links are not followed
    urls = [str(path) for path in paths]
    tops = set()
    for row, path in files.items():
        if not path.is_relative_to(base):
            raise InvalidInputError(
                f"the image {str(path)!r} of frame {frame_names[row]!r} must be below the document root {str(base)!r}; "
                "give a folder that holds all images by `document_root`"
            )
        below = path.relative_to(base)
        if len(below.parts) < 2:
            raise InvalidInputError(
                f"the image {str(path)!r} of frame {frame_names[row]!r} is in the `document_root` itself, and Label "
                f"Studio serves only folders below it. Give the folder above, {str(base.parent)!r}"
            )
        tops.add(base / below.parts[0])
        urls[row] = f"/data/local-files/?d={quoted(below.as_posix())}"
    return Served(tuple(urls), base, (shared,) if base in shared.parents else tuple(sorted(tops)))


def quoted(path: str) -> str:
    """A path below the document root, quoted for a URL."""
    return quote(path, safe="/", errors="surrogateescape")


def is_remote(path: str | Path) -> bool:
    """Whether the name of an image is a URL that Label Studio, or a storage of it, reads by itself."""
    return isinstance(path, str) and _REMOTE.match(path) is not None


def label_config(class_names: Mapping[int, str]) -> str:
    """The labelling interface: one image, and boxes of these classes.

    Raises:
        InvalidInputError: no class, or a name with a character that XML cannot hold.
    """
    if not class_names:
        raise InvalidInputError("Label Studio needs at least one class to label with; pass `class_names`")
    lines = []
    for place, (label, name) in enumerate(sorted(class_names.items())):
        wrong = _NO_XML.search(name)
        if wrong:
            raise InvalidInputError(
                f"the name {name!r} of class {label} has the character {wrong[0]!r}, which XML, and so Label Studio's "
                "interface, cannot hold. Rename the class in `class_names`"
            )
        lines.append(f'    <Label value={_attribute(name)} background="{_color(place)}"/>')
    return "\n".join(
        [
            "<View>",
            f'  <Image name="{IMAGE}" value="${IMAGE}" zoom="true" zoomControl="true"/>',
            f'  <RectangleLabels name="{CONTROL}" toName="{IMAGE}">',
            *lines,
            "  </RectangleLabels>",
            "</View>",
            "",
        ]
    )


def _attribute(text: str) -> str:
    return quoteattr(text, {"\u2028": "&#8232;", "\u2029": "&#8233;", "\x85": "&#133;"})


def _color(place: int) -> str:
    """Colors that differ most from the ones before, as the golden angle spreads hues."""
    red, green, blue = colorsys.hls_to_rgb(place * _GOLDEN % 1, 0.45, 0.9)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def readme(served: Served, *, folder: Path, model_version: str, annotated: bool) -> str:
    """What a person does with the export, step by step.

    Args:
        served: how images are reached.
        folder: of the export.
        model_version: what the pre-labels are called.
        annotated: whether tasks are annotated already.
    """
    steps = [*_start(served), *_project(served, folder), *_look(model_version), *_label(), *_fetch()]
    numbered = [f"{number}. {step}" for number, step in enumerate(steps, start=1)]
    done = ["Some tasks are annotated already, and are imported so.", ""] if annotated else []
    return "\n".join(["Frames to annotate in Label Studio", "=" * 34, "", *done, "\n\n".join(numbered), ""])


def _start(served: Served) -> list[str]:
    if served.root is None:
        return ["Start Label Studio:\n\n     label-studio start"]
    root = str(served.root)
    return [
        "Start Label Studio with these variables. Images stay where they are, and it shows them from there:\n\n"
        "     export LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true\n"
        f"     export LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={shlex.quote(root)}\n"
        "     label-studio start\n\n"
        "   On Windows, write `set NAME=value` for each of them, without quotes. In a container, mount that folder, "
        "and\n   give the variable the path that it has there:\n\n"
        f"     docker run -p 8080:8080 -v {shlex.quote(root + ':/label-studio/files:ro')} \\\n"
        "       -e LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true \\\n"
        "       -e LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=/label-studio/files heartexlabs/label-studio"
    ]


def _project(served: Served, folder: Path) -> list[str]:
    steps = [
        "Create a project. Under Settings > Labeling Interface > Code, replace everything by the content of\n"
        f"   {folder / 'label_config.xml'}, and save."
    ]
    if served.root is not None:
        paths = "\n".join(f"     {path}" for path in served.storages)
        below = "\n".join(
            f"     /label-studio/files/{path.relative_to(served.root).as_posix()}" for path in served.storages
        )
        each = "this path" if len(served.storages) == 1 else "each of these paths, one storage a path"
        steps.append(
            f"Under Settings > Cloud Storage > Add Source Storage > Local Files, add a storage with {each}:\n\n"
            f"{paths}\n\n   In a container:\n\n{below}\n\n"
            "   Choose any import method. Press Save, and not Save & Sync: a sync would make other tasks of the same\n"
            "   images. The storage only permits to show them."
        )
    steps.append(f"In the project, Import {folder / 'tasks.json'}. The most informative frame comes first.")
    return steps


def _look(model_version: str) -> list[str]:
    return [
        "Under Settings > Annotation, turn on `Use predictions to prelabel tasks` and choose the model version\n"
        f"   {model_version!r}. Save. With another version chosen, the column `Prediction score` stays empty.\n"
        "   It is the mean score of a frame's pre-labels.",
        "In the Data Manager, order by `rank`, or show the columns `uncertainty` and `round`. `Label Tasks As "
        "Displayed`\n   goes through them in that order.",
    ]


def _label() -> list[str]:
    return [
        "Correct the boxes, and Submit. Submit an image with nothing in it, too, without a box: it then counts as\n"
        "   annotated. Skip leaves it out."
    ]


def _fetch() -> list[str]:
    return [
        "Export as JSON (not JSON-MIN, which does not tell images with nothing in them from images that nobody\n"
        "   looked at), and read the file:\n\n"
        "     from cval_torch.formats import load_label_studio\n\n"
        '     annotations = load_label_studio("project-1-at-2026-01-01.json", class_names=...)'
    ]
