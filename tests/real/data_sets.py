"""The real data sets as their files are, and what pycocotools finds in them: the oracle of these tests."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from scenes import DATA, needs


@dataclass(frozen=True)
class Phase:
    """The images to train on, or to validate on."""

    file: Path
    images: Path

    @cached_property
    def coco(self) -> COCO:
        with contextlib.redirect_stdout(io.StringIO()):
            return COCO(str(self.file))

    @cached_property
    def image_ids(self) -> list[int]:
        """In the order in which mmdet numbers them."""
        return self.coco.getImgIds()

    def annotations(self, image: int) -> list[dict]:
        return self.coco.loadAnns(self.coco.getAnnIds(imgIds=[image]))

    def kept(self, image: int) -> list[dict]:
        """What mmdet keeps, crowds among it: sides of a pixel or more, some area, something within the image."""
        height, width = self.coco.imgs[image]["height"], self.coco.imgs[image]["width"]
        found = []
        for annotation in self.annotations(image):
            x, y, w, h = annotation["bbox"]
            inside = min(x + w, width) > max(x, 0) and min(y + h, height) > max(y, 0)
            if w >= 1 and h >= 1 and annotation["area"] > 0 and inside:
                found.append(annotation)
        return found

    def objects(self, image: int) -> list[dict]:
        """What an assigner is given to assign: crowds are not."""
        return [annotation for annotation in self.kept(image) if not annotation["iscrowd"]]

    def classes(self, images: list[int]) -> Counter[str]:
        """How many objects each class has."""
        names = {key: category["name"] for key, category in self.coco.cats.items()}
        return Counter(names[found["category_id"]] for image in images for found in self.objects(image))

    def telling(self, count: int) -> list[int]:
        """Numbers of images: the fullest, one with a crowd, one whose boxes are dropped, one without objects; more."""
        ids = self.image_ids
        first = [max(ids, key=lambda image: len(self.objects(image)))]
        for peculiar in (
            lambda image: any(found["iscrowd"] for found in self.annotations(image)),
            lambda image: len(self.kept(image)) < len(self.annotations(image)),
            lambda image: not self.annotations(image),
        ):
            first += [image for image in ids if peculiar(image)][:1]
        return [ids.index(image) for image in dict.fromkeys([*first, *ids])][:count]


@dataclass(frozen=True)
class DataSet:
    """One of them: its name is that of its folder, of its config, and ``VISDET_NAME`` tells where it is."""

    name: str
    train: Phase
    val: Phase

    @property
    def root(self) -> Path:
        return DATA / self.name

    @property
    def variable(self) -> str:
        return f"VISDET_{self.name.upper()}"


def _data_set(name: str, annotations: str, images: str) -> DataSet:
    root = DATA / name
    return DataSet(name, *(
        Phase(root / "annotations" / annotations.format(phase), root / images.format(phase))
        for phase in ("train", "val")
    ))  # fmt: skip


DATA_SETS = {
    "bccd": _data_set("bccd", "{}.json", "images"),
    "nuclei": _data_set("nuclei", "{}.json", "images"),
    "tiny_coco": _data_set("tiny_coco", "instances_{}2017.json", "{}2017"),
}


EACH = [pytest.param(found, id=name, marks=needs(name)) for name, found in DATA_SETS.items()]
