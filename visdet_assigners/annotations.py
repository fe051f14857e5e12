"""Check COCO annotations before a training: what would stop it late, what mmdet leaves out without a word.

mmdet drops boxes without area, boxes outside their image and unknown categories silently, stops somewhere at a missing
key, and accepts an infinite box.  Here each defect is named by file, annotation and image, before the first iteration.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

Item = Mapping[str, Any]
"""An image or an annotation of a COCO file."""
Fault = tuple[str, str]
"""The kind of a fault, and what was found."""
SHOWN = 3
"""How many of a defect's places are named."""


class AnnotationError(Exception):
    """The annotations can't be used; the message is one line with the file, the place and what to do."""


@dataclass
class Defect:
    """One kind of defect and where it is.

    Attributes:
        what: it is, as in "boxes outside their image".
        places: names of the annotations or images.
    """

    what: str
    places: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        more = f" and {len(self.places) - SHOWN} more" if len(self.places) > SHOWN else ""
        return f"{self.what}: {'; '.join(self.places[:SHOWN])}{more}"


@dataclass
class AnnotationReport:
    """What one file holds.

    Attributes:
        path: of the file.
        images: how many.
        objects: annotations that mmdet uses, crowds among them.
        fatal: what stops a training, or makes it wrong.
        dropped: what mmdet leaves out.
    """

    path: str
    images: int = 0
    objects: int = 0
    fatal: list[Defect] = field(default_factory=list)
    dropped: list[Defect] = field(default_factory=list)

    @property
    def num_dropped(self) -> int:
        """How many annotations are left out."""
        return sum(len(defect.places) for defect in self.dropped)


def read_json(path: str | Path) -> Any:
    """Read a JSON file strictly: NaN and Infinity, which Python's parser lets through, are no JSON.

    Raises:
        AnnotationError: the file can't be read, is cut off, or is no JSON.
    """

    def refuse(literal: str) -> None:
        raise AnnotationError(f"{path} holds {literal}, which is no JSON; find it and mend the number")

    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise AnnotationError(
            f"{path} is no whole JSON file: {error.msg} at line {error.lineno}, column {error.colno}; was it cut off "
            "while it was copied or written?"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path} can't be read: {error}") from error


def check_annotations(
    path: str | Path, image_folder: str | Path | None = None, classes: Sequence[str] | None = None
) -> AnnotationReport:
    """Go through a COCO file.

    Args:
        path: of the file.
        image_folder: where its images lie; None leaves them unchecked.
        classes: what the detector is to learn, by name; None means all categories of the file.

    Raises:
        AnnotationError: it can't be read, or isn't laid out as COCO.
    """
    data = read_json(path)
    lists = {name: _list_of(data, name, path) for name in ("images", "annotations", "categories")}
    report = AnnotationReport(str(path), len(lists["images"]))
    images = {one.get("id"): one for one in lists["images"]}
    categories = {one.get("id"): one.get("name") for one in lists["categories"]}
    wanted = {key for key, name in categories.items() if classes is None or name in classes}
    report.fatal += _sort_out(lists["images"], _image_fault(image_folder), _image_name)[0]
    report.fatal += _repeated(lists["images"], "images") + _repeated(lists["annotations"], "annotations")

    def name(annotation: Mapping[str, Any]) -> str:
        image = images.get(annotation.get("image_id"), {})
        return f"annotation {annotation.get('id')} of {_image_name(image) if image else 'no image'}"

    fatal, sound = _sort_out(lists["annotations"], _value_fault, name)
    report.fatal += fatal
    report.dropped, used = _sort_out(sound, lambda one: _reason_to_drop(one, images, categories), name)
    report.objects = sum(one["category_id"] in wanted for one in used)
    missing = [one for one in classes or () if one not in categories.values()]
    if missing:
        known = ", ".join(map(str, list(categories.values())[:10]))
        report.fatal.append(Defect(f"classes that no category of the file bears (it has {known})", missing))
    if not report.images or not report.objects:
        report.fatal.append(Defect("nothing to learn from", [f"{report.images} images, {report.objects} objects"]))
    return report


def _list_of(data: Any, name: str, path: str | Path) -> list[dict[str, Any]]:
    value = data.get(name) if isinstance(data, dict) else None
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise AnnotationError(f"{path} has no list of {name}; a COCO file has images, annotations and categories")
    return value


def _image_name(image: Mapping[str, Any]) -> str:
    return f"image {image.get('file_name', image.get('id'))}"


def _sort_out(
    items: Iterable[Item], fault: Callable[[Item], Fault | None], name: Callable[[Item], str]
) -> tuple[list[Defect], list[Item]]:
    """Gather the faulty items by the kind of their fault, and return them and the others."""
    defects: dict[str, Defect] = {}
    sound = []
    for item in items:
        found = fault(item)
        if found is None:
            sound.append(item)
        else:
            kind, detail = found
            defects.setdefault(kind, Defect(kind)).places.append(f"{name(item)}{detail and f' ({detail})'}")
    return list(defects.values()), sound


def _repeated(items: Sequence[Mapping[str, Any]], what: str) -> list[Defect]:
    seen: set[Any] = set()
    again = []
    for one in items:
        key = one.get("id")
        if key in seen:
            again.append(str(key))
        seen.add(key)
    return [Defect(f"{what} with the same id", again)] if again else []


def _image_fault(folder: str | Path | None) -> Callable[[Item], Fault | None]:
    def fault(image: Item) -> Fault | None:
        missing = [key for key in ("id", "file_name", "width", "height") if key not in image]
        if missing:
            return "images without a key", ", ".join(missing)
        name = str(image["file_name"])
        windows = PureWindowsPath(name)
        if PurePosixPath(name).is_absolute() or windows.is_absolute() or windows.drive or ".." in windows.parts:
            return "file names that lead out of the image folder", ""
        if folder is not None and not (Path(folder) / name).is_file():
            return f"images that are not in {folder}", ""
        return None

    return fault


def _value_fault(annotation: Item) -> Fault | None:
    """What makes an annotation unusable."""
    missing = [key for key in ("id", "image_id", "category_id", "bbox", "area") if key not in annotation]
    if missing:
        return "annotations without a key", ", ".join(missing)
    box = annotation["bbox"]
    numbers = [*box, annotation["area"]] if isinstance(box, list) else []
    if len(numbers) != 5 or not all(isinstance(one, (int, float)) and math.isfinite(one) for one in numbers):
        return "boxes that are not four finite numbers x, y, width, height", f"bbox {box}, area {annotation['area']}"
    return None


def _reason_to_drop(annotation: Item, images: Mapping[Any, Item], categories: Mapping[Any, Any]) -> Fault | None:
    """Why mmdet leaves a usable annotation out."""
    x, y, width, height = annotation["bbox"]
    image = images.get(annotation["image_id"])
    if image is None:
        return "annotations of images that are not there", f"image_id {annotation['image_id']}"
    if annotation["category_id"] not in categories:
        return "annotations of unknown categories", f"category_id {annotation['category_id']}"
    if width < 1 or height < 1 or annotation["area"] <= 0:
        return "boxes with a side below one pixel, or without area", f"bbox {annotation['bbox']}"
    if x >= image.get("width", math.inf) or y >= image.get("height", math.inf) or x + width <= 0 or y + height <= 0:
        return "boxes outside their image", f"bbox {annotation['bbox']}"
    return None
