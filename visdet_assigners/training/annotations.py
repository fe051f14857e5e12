"""Check COCO annotations before a training: what would stop it late, what mmdet leaves out without a word.

mmdet drops boxes without area, boxes outside their image and unknown categories silently, stops somewhere at a missing
key, and accepts an infinite box.  Here each defect is named by file, annotation and image, before the first iteration.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from visdet_assigners.training.classes import class_faults
from visdet_assigners.training.images import header_fault, is_below, leads_out, mask_fault, real_folders, size_fault

Item = Mapping[str, Any]
"""An image or an annotation of a COCO file."""
Fault = tuple[str, str]
"""The kind of a fault, and what was found."""
SHOWN = 3
"""How many of a defect's places are named."""
MAX_NUMBER = 1e12
"""Beyond any number that a box, an area or an image may have; infinity is."""


class AnnotationError(Exception):
    """The annotations can't be used; the message is one line with the file, the place and what to do."""


@dataclass
class Defect:
    """One kind of defect and where it is.

    Attributes:
        what: it is, as in "boxes outside their image".
        places: names of the annotations or images.
        advice: what to do, where the kind doesn't say it.
    """

    what: str
    places: list[str] = field(default_factory=list)
    advice: str = ""

    def __str__(self) -> str:
        more = f" and {len(self.places) - SHOWN} more" if len(self.places) > SHOWN else ""
        return f"{self.what}: {'; '.join(self.places[:SHOWN])}{more}" + (f"; {self.advice}" if self.advice else "")


@dataclass
class AnnotationReport:
    """What one file holds.

    Attributes:
        path: of the file.
        images: how many.
        objects: annotations that mmdet uses, crowds among them.
        categories: names of the categories, in the order of the file.
        fatal: what stops a training, or makes it wrong.
        dropped: what mmdet leaves out.
        told: what is to be known besides.
        unreadable: images whose header can't be read.
    """

    path: str
    images: int = 0
    objects: int = 0
    categories: list[str] = field(default_factory=list)
    fatal: list[Defect] = field(default_factory=list)
    dropped: list[Defect] = field(default_factory=list)
    told: list[Defect] = field(default_factory=list)
    unreadable: list[Defect] = field(default_factory=list)

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
    except RecursionError as error:
        raise AnnotationError(f"{path} nests lists deeper than any annotations do; who made it?") from error
    except (OSError, ValueError) as error:  # not UTF-8, or a number of thousands of digits
        raise AnnotationError(f"{path} can't be read: {error}") from error


def check_annotations(
    path: str | Path,
    image_folder: str | Path | None = None,
    classes: Sequence[str] | None = None,
    data_root: str | Path | None = None,
    headers: bool = False,
    masks: bool = False,
    scored: bool = False,
    labelled: bool = True,
) -> AnnotationReport:
    """Go through a COCO file.

    Args:
        path: of the file.
        image_folder: where its images lie; None leaves them unchecked.
        classes: what the detector is to learn, by name; None means all categories of the file.
        data_root: links among the images may lead anywhere below it; None means the image folder.
        headers: whether to read the header of each image too.
        masks: whether each object needs a mask, to learn from or to be evaluated.
        scored: whether COCO's evaluation reads the file itself, which asks for more than mmdet does.
        labelled: whether there must be objects; the file of a test set may have none, nor a list of them.

    Raises:
        AnnotationError: it can't be read, or isn't laid out as COCO.
    """
    data = read_json(path)
    if not labelled and isinstance(data, dict):
        data.setdefault("annotations", [])
    lists = {name: _list_of(data, name, path) for name in ("images", "annotations", "categories")}
    report = AnnotationReport(str(path), len(lists["images"]))
    roots = [root for root in (image_folder, data_root) if root]
    report.fatal, known = _sort_out(lists["images"], _image_fault(image_folder, roots), _image_name)
    unnamed, named = _sort_out(lists["categories"], _category_fault, lambda one: f"category {one.get('id')}")
    report.fatal += unnamed
    images = {one["id"]: one for one in known}
    categories = {one["id"]: one["name"] for one in named}
    report.categories = [one["name"] for one in named]
    wanted = {key for key, name in categories.items() if classes is None or name in classes}
    report.fatal += [defect for name in lists for defect in _repeated(lists[name], name)]
    if headers and image_folder is not None:
        reading = tqdm(known, desc="reading headers", unit="image", delay=2)
        report.unreadable, _ = _sort_out(reading, _header_fault(Path(image_folder)), _image_name)

    def name(annotation: Mapping[str, Any]) -> str:
        where = (
            _image_name(images[_key(annotation, "image_id")]) if _key(annotation, "image_id") in images else "no image"
        )
        return f"annotation {annotation.get('id')} of {where}"

    read = [one for one in lists["annotations"] if not one.get("ignore")]  # the others are meant to be left out
    fatal, sound = _sort_out(read, lambda one: _value_fault(one, images), name)
    report.fatal += fatal
    report.dropped, used = _sort_out(sound, lambda one: _reason_to_drop(one, images, categories), name)
    learned = [one for one in used if one["category_id"] in wanted]
    report.objects = len(learned)
    if masks:
        report.fatal += _sort_out(learned, _lack_of_mask, name)[0]
    if scored:
        report.fatal += _sort_out(lists["annotations"], _unscorable, name)[0]
        report.told += _sort_out(used, _miscounted, name)[0]
    if classes is not None:
        report.fatal += [Defect(*fault) for fault in class_faults(report.categories, classes)]
    if not report.images or (labelled and not report.objects):
        report.fatal.append(Defect("nothing to learn from", [f"{report.images} images, {report.objects} objects"]))
    return report


def _key(item: Item, name: str) -> float | str | None:
    """A number or a text by which an item refers to another; None for what can't be one."""
    value = item.get(name)
    return value if isinstance(value, (int, float, str)) else None


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
        key = _key(one, "id")
        if key in seen and key is not None:
            again.append(str(key))
        seen.add(key)
    return [Defect(f"{what} with the same id", again)] if again else []


def _without(item: Item, keys: Sequence[str], values: Sequence[str] = ()) -> str:
    """What an item lacks: keys by which it is known or refers to others, numbers or texts, and values of any kind."""
    missing = [name for name in keys if _key(item, name) is None]
    return ", ".join([*missing, *(name for name in values if item.get(name) is None)])


def _image_fault(folder: str | Path | None, roots: Sequence[str | Path]) -> Callable[[Item], Fault | None]:
    folders = real_folders(roots)

    def fault(image: Item) -> Fault | None:
        missing = _without(image, ("id", "file_name"), ("width", "height"))
        if missing:
            return "images without a key", missing
        name = image["file_name"]
        if not isinstance(name, str):
            return "file names that are no text", repr(name)
        if leads_out(name):
            return "file names that lead out of the image folder", ""
        if not (_number(image["width"]) and _number(image["height"]) and min(image["width"], image["height"]) > 0):
            return "images without a size", f"{image['width']}x{image['height']}"
        too_large = size_fault(image["width"], image["height"])
        if too_large:
            return "images that are too large", too_large
        if folder is not None:
            path = os.path.join(folder, name)
            if not os.path.isfile(path):
                return f"images that are not in {folder}", ""
            if not is_below(path, folders):
                return f"links that lead out of {' and '.join(map(str, roots))}", f"to {os.path.realpath(path)}"
        return None

    return fault


def _header_fault(folder: Path) -> Callable[[Item], Fault | None]:
    def fault(image: Item) -> Fault | None:
        found = header_fault(folder / str(image["file_name"]))
        return ("images that can't be read", found) if found else None

    return fault


def _category_fault(category: Item) -> Fault | None:
    missing = _without(category, ("id", "name"))
    return ("categories without a key", missing) if missing else None


def _number(value: Any) -> bool:
    """Whether a value is a number that a box may have."""
    return isinstance(value, (int, float)) and -MAX_NUMBER < value < MAX_NUMBER


def _value_fault(annotation: Item, images: Mapping[Any, Item]) -> Fault | None:
    """What makes an annotation unusable."""
    missing = _without(annotation, ("id", "image_id", "category_id"), ("area", "bbox"))
    if missing:
        return "annotations without a key", missing
    box, area, crowd = annotation["bbox"], annotation["area"], annotation.get("iscrowd")
    if not isinstance(box, list) or len(box) != 4 or not all(_number(one) for one in box):
        return "boxes that are not four finite numbers x, y, width, height", f"bbox {box}"
    if not _number(area):
        return "areas that are no finite number", f"area {area!r}"
    if crowd not in (0, 1, None):
        return "iscrowd that is neither 0 nor 1, which mmdet takes for a crowd", f"iscrowd {crowd!r}"
    image = images.get(annotation["image_id"])
    wrong = image and mask_fault(annotation.get("segmentation"), image["width"] * image["height"])
    return ("masks that can't be drawn", wrong) if wrong else None


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


def _lack_of_mask(annotation: Item) -> Fault | None:
    """Whether an object lacks a mask: mmdet stops where it loads masks, COCO's evaluation where it compares them."""
    what = "objects without a mask, which the pipeline or the evaluation reads"
    return None if annotation.get("segmentation") else (what, "")


def _unscorable(annotation: Item) -> Fault | None:
    """What COCO's evaluation stops at in an annotation that mmdet reads."""
    if annotation.get("iscrowd") is None:
        return "annotations without iscrowd, at which COCO's evaluation stops; write 0", ""
    if isinstance(annotation.get("id"), str):
        return "annotations whose id is a text, at which COCO's evaluation stops; write numbers", ""
    return None


def _miscounted(annotation: Item) -> Fault | None:
    """What COCO's evaluation counts wrong."""
    if annotation["id"] == 0:
        return "an annotation with the id 0, whose detections COCO's evaluation counts as false; number from 1", ""
    return None
