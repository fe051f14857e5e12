"""Small data sets in every layout that mmdet's data sets read, made of a few pictures of a COCO file.

    pictures = load_pictures("data/coco/annotations/instances_val2017.json", "data/coco/val2017", 4)
    write_dataset(cfg.train_dataloader.dataset, pictures, folder)

writes below ``folder`` what that part of a config names: annotation files, images, masks, proposals, lists of classes.
Classes of another data set are those of COCO by number; where it has fewer they begin again.

A function for each kind of data set, hence the length.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import mmengine
import numpy as np
from mmdet import datasets as mmdet_datasets
from mmengine.dataset import BaseDataset
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_masks

CLASSES = tuple(f"class {number}" for number in range(20))
"""For data sets that read the names of their classes from a file."""
FRAMES = 8
"""Of a video, which shows one picture several times."""


@dataclass(frozen=True)
class Thing:
    """One annotation: box xyxy in pixels, class by number, whether it is a crowd, and its mask as COCO keeps it."""

    box: tuple[float, float, float, float]
    label: int
    crowd: bool
    segmentation: Any

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """(height, width) bool."""
        parts = coco_masks.frPyObjects(self.segmentation, height, width)
        whole = coco_masks.merge(parts) if isinstance(parts, list) else parts
        return coco_masks.decode(whole).astype(bool)


@dataclass(frozen=True)
class Picture:
    """One image with what is on it."""

    path: Path
    width: int
    height: int
    things: tuple[Thing, ...]


def load_pictures(annotations: str | Path, images: str | Path, count: int, most: int = 12) -> list[Picture]:
    """Choose pictures of a COCO file: those with the most objects, up to ``most``, and first of all one with a crowd.

    Args:
        annotations: the file; each of its annotations has a mask.
        images: the folder of its images.
        count: how many; fewer where there aren't as many.
        most: objects of a picture.
    """
    data = json.loads(Path(annotations).read_text(encoding="utf-8"))
    label_of = {category["id"]: label for label, category in enumerate(data["categories"])}
    things: dict[Any, list[Thing]] = {}
    for one in data["annotations"]:
        x, y, width, height = one["bbox"]
        box = (x, y, x + width, y + height)
        thing = Thing(box, label_of[one["category_id"]], bool(one.get("iscrowd")), one["segmentation"])
        things.setdefault(one["image_id"], []).append(thing)
    pictures = [
        Picture(Path(images) / image["file_name"], image["width"], image["height"], tuple(things[image["id"]]))
        for image in data["images"]
        if len(things.get(image["id"], ())) <= most and any(not thing.crowd for thing in things.get(image["id"], ()))
    ]
    pictures.sort(key=lambda picture: (-sum(thing.crowd for thing in picture.things), -len(picture.things)))
    crowded = [picture for picture in pictures if any(thing.crowd for thing in picture.things)][:1]
    plain = [picture for picture in pictures if not any(thing.crowd for thing in picture.things)]
    return (crowded + plain)[:count]


def write_dataset(config: Mapping[str, Any], pictures: Sequence[Picture], folder: Path) -> list[str]:
    """Write what a data set reads, and those inside it.

    Args:
        config: of the data set, with its ``type``.
        pictures: to make it of.
        folder: where the paths of the config begin.

    Returns:
        The types of the data sets that read files; one that we can't write gets an empty annotation file.
    """
    inner = [part for part in [config.get("dataset"), *(config.get("datasets") or [])] if part]
    if inner:
        return [kind for part in inner for kind in write_dataset(part, pictures, folder)]
    kind = config["type"]
    name = kind if isinstance(kind, str) else kind.__name__
    known = getattr(mmdet_datasets, name.rpartition(".")[2], BaseDataset)
    place = _Place(config, known, pictures, Path(folder) / (config.get("data_root") or ""))
    fitting = (write for base, write in WRITERS.items() if issubclass(known, getattr(mmdet_datasets, base)))
    next(fitting, _unknown)(place)
    return [name]


@dataclass(frozen=True)
class _Place:
    """Where one data set lies, and what it is made of."""

    config: Mapping[str, Any]
    kind: Any
    pictures: Sequence[Picture]
    root: Path

    @property
    def classes(self) -> Sequence[str]:
        own = (self.config.get("metainfo") or {}).get("classes")
        if "dataset_version" in self.config:
            self.kind.set_dataset_classes(self.config["dataset_version"])
        return own or self.kind.METAINFO.get("classes") or CLASSES

    def label(self, thing: Thing) -> int:
        return thing.label % len(self.classes)

    def file(self, *parts: str) -> Path:
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def text(self, name: str, content: str) -> None:
        self.file(name).write_text(content, encoding="utf-8")

    def json(self, name: str, content: Any) -> None:
        self.text(name, json.dumps(content))

    def option(self, name: str, default: str) -> str:
        return self.config.get(name) or default

    def prefix(self, name: str, default: str = "") -> str:
        return (self.config.get("data_prefix") or {}).get(name) or default

    def copy(self, picture: Picture, *parts: str) -> None:
        shutil.copyfile(picture.path, self.file(*parts))


def _name(picture: Picture) -> str:
    return f"{picture.path.stem}.jpg"


# --------------------------------------------------------------------------------------------------------- COCO's own


def _coco(place: _Place, folder: str = "", images: Callable[[Picture], Mapping[str, Any]] = lambda _: {}) -> None:
    """Annotations as COCO has them, images, semantic maps where the config wants some, and proposals."""
    content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": _categories(place)}
    for number, picture in enumerate(place.pictures, start=1):
        name = folder + _name(picture)
        place.copy(picture, place.prefix("img"), name)
        size = {"height": picture.height, "width": picture.width}
        content["images"].append({"id": number, "file_name": name, **size, **images(picture)})
        for thing in picture.things:
            content["annotations"].append(_annotation(place, thing, len(content["annotations"]) + 1, number))
        if place.prefix("seg"):
            _semantic_map(place, picture, f"{picture.path.stem}.png")
    place.json(place.config["ann_file"], content)
    if place.config.get("proposal_file"):
        _proposals(place)


def _categories(place: _Place) -> list[dict[str, Any]]:
    fields = {"supercategory": "", "frequency": "f", "image_count": len(place.pictures), "synset": ""}
    return [{"id": label + 1, "name": name, **fields} for label, name in enumerate(place.classes)]


def _annotation(place: _Place, thing: Thing, number: int, image: int) -> dict[str, Any]:
    x1, y1, x2, y2 = thing.box
    return {
        "id": number, "image_id": image, "category_id": place.label(thing) + 1, "iscrowd": int(thing.crowd),
        "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "segmentation": thing.segmentation,
    }  # fmt: skip


def _semantic_map(place: _Place, picture: Picture, name: str) -> None:
    """A class for each pixel; 255 where there is nothing."""
    labels = np.full((picture.height, picture.width), 255, dtype=np.uint8)
    for thing in picture.things:
        labels[thing.mask(picture.height, picture.width)] = place.label(thing)
    Image.fromarray(labels).save(place.file(place.prefix("seg"), name))


def _proposals(place: _Place) -> None:
    """The objects' own boxes, and these moved and shrunk a little, as JSON."""
    name = place.config["proposal_file"]
    folder = Path(place.prefix("img")).name
    found = {}
    for picture in place.pictures:
        boxes = np.array([thing.box for thing in picture.things])
        boxes = np.concatenate([boxes, boxes + 4, boxes * 0.9])
        scores = np.linspace(1, 0.5, len(boxes))
        found[f"{folder}/{_name(picture)}"] = {"bboxes": boxes.tolist(), "scores": scores.tolist()}
    place.json(name, found)


def _objects365_v2(place: _Place) -> None:
    _coco(place, folder="patch0/")


def _lvis(place: _Place) -> None:
    """LVIS v1 takes names from the address of an image, v0.5 from ``file_name``."""
    more: dict[str, Any] = {"not_exhaustive_category_ids": [], "neg_category_ids": []}
    folder = "" if place.prefix("img") else "train2017/"
    _coco(place, folder, lambda one: {**more, "coco_url": f"http://images.cocodataset.org/train2017/{_name(one)}"})


def _v3det(place: _Place) -> None:
    name = place.option("label_file", "annotations/category_name_13204_v3det_2023_v1.txt")
    place.text(name, "\n".join(CLASSES))
    _coco(place)


def _panoptic(place: _Place) -> None:
    """Things by their masks, and one kind of stuff around them."""
    things = set(place.kind.METAINFO["thing_classes"])
    categories = [{**one, "isthing": int(one["name"] in things)} for one in _categories(place)]
    stuff = next(one["id"] for one in categories if not one["isthing"])
    content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": categories}
    for number, picture in enumerate(place.pictures, start=1):
        place.copy(picture, place.prefix("img"), _name(picture))
        size = {"height": picture.height, "width": picture.width}
        content["images"].append({"id": number, "file_name": _name(picture), **size})
        ids = np.full((picture.height, picture.width), 1, dtype=np.int64)
        segments = [{"id": 1, "category_id": stuff, "iscrowd": 0, "area": ids.size,
                     "bbox": [0, 0, picture.width, picture.height]}]  # fmt: skip
        for thing in picture.things:
            one = _annotation(place, thing, len(segments) + 1, number)
            ids[thing.mask(picture.height, picture.width)] = one["id"]
            segments.append({key: one[key] for key in ("id", "category_id", "iscrowd", "bbox", "area")})
        name = f"{picture.path.stem}.png"
        rgb = np.stack([ids % 256, ids // 256 % 256, ids // 256**2], axis=-1).astype(np.uint8)
        Image.fromarray(rgb).save(place.file(place.prefix("seg"), name))
        content["annotations"].append({"image_id": number, "file_name": name, "segments_info": segments})
    place.json(place.config["ann_file"], content)


def _video(place: _Place) -> None:
    """Videos of a few frames that are all the same, so that each object is on each of them."""
    content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": _categories(place), "videos": []}
    for video, picture in enumerate(place.pictures, start=1):
        content["videos"].append({"id": video, "name": f"video{video}"})
        for frame in range(FRAMES):
            name = f"video{video}/{frame:06d}.jpg"
            place.copy(picture, place.prefix("img_path"), name)
            number = len(content["images"]) + 1
            content["images"].append({
                "id": number, "file_name": name, "height": picture.height, "width": picture.width, "video_id": video,
                "frame_id": frame,
            })  # fmt: skip
            for instance, thing in enumerate(picture.things, start=1):
                one = _annotation(place, thing, len(content["annotations"]) + 1, number)
                more = {"instance_id": 1000 * video + instance, "mot_conf": 1.0, "visibility": 1.0}
                content["annotations"].append({**one, **more})
    place.json(place.config["ann_file"], content)


# ------------------------------------------------------------------------------------------------------------- others


def _voc(place: _Place) -> None:
    """A list of names, and an XML file for each image."""
    root = place.prefix("sub_data_root")
    _xml_files(place, f"{root}/Annotations", f"{root}/JPEGImages", "VOC", first=1)


def _wider_face(place: _Place) -> None:
    _xml_files(place, f"{place.prefix('img')}/Annotations", f"{place.prefix('img')}/0--Parade", "0--Parade", first=0)


def _xml_files(place: _Place, annotations: str, images: str, folder: str, first: int) -> None:
    """``first`` is the number of the first pixel."""
    for picture in place.pictures:
        place.copy(picture, images, _name(picture))
        objects = "".join(
            f"<object><name>{escape(place.classes[place.label(thing)])}</name><difficult>{int(thing.crowd)}</difficult>"
            "<bndbox>" + "".join(f"<{key}>{int(value) + first}</{key}>" for key, value in
                                 zip(("xmin", "ymin", "xmax", "ymax"), thing.box)) + "</bndbox></object>"
            for thing in picture.things
        )  # fmt: skip
        size = f"<size><width>{picture.width}</width><height>{picture.height}</height><depth>3</depth></size>"
        place.text(f"{annotations}/{picture.path.stem}.xml",
                   f"<annotation><folder>{folder}</folder>{size}{objects}</annotation>")  # fmt: skip
    place.text(place.config["ann_file"], "\n".join(picture.path.stem for picture in place.pictures))


def _crowd_human(place: _Place) -> None:
    """A line of JSON for each image."""
    lines = []
    for picture in place.pictures:
        place.copy(picture, place.prefix("img"), _name(picture))
        boxes = []
        for thing in picture.things:
            x1, y1, x2, y2 = thing.box
            box = [round(value) for value in (x1, y1, x2 - x1, y2 - y1)]
            tag = "mask" if thing.crowd else "person"
            boxes.append({"tag": tag, "fbox": box, "hbox": box, "vbox": box, "extra": {}})
        lines.append(json.dumps({"ID": picture.path.stem, "gtboxes": boxes}))
    place.text(place.config["ann_file"], "\n".join(lines))


def _odvg(place: _Place) -> None:
    """A line of JSON for each image: with a map of classes, objects; without one, phrases of a sentence."""
    labels = place.config.get("label_map_file")
    if labels:
        place.json(labels, {str(number): name for number, name in enumerate(CLASSES)})
    lines = []
    for picture in place.pictures:
        place.copy(picture, place.prefix("img"), _name(picture))
        objects = [(list(thing.box), thing.label % len(CLASSES)) for thing in picture.things if not thing.crowd]
        line: dict[str, Any] = {"filename": _name(picture), "height": picture.height, "width": picture.width}
        if labels:
            found = [{"bbox": box, "label": label, "category": CLASSES[label]} for box, label in objects]
            line["detection"] = {"instances": found}
        else:
            phrases = [f"thing {letter}" for letter in "abcdefghijklmnopqrstuvwxyz"[: len(objects)]]
            caption = " . ".join(phrases)
            starts = [caption.index(phrase) for phrase in phrases]
            line["grounding"] = {"caption": caption, "regions": [
                {"bbox": box, "phrase": phrase, "tokens_positive": [[start, start + len(phrase)]]}
                for (box, _), phrase, start in zip(objects, phrases, starts)
            ]}  # fmt: skip
        lines.append(json.dumps(line))
    place.text(place.config["ann_file"], "\n".join(lines))


def _open_images(place: _Place) -> None:
    """A row for each box, and files with the classes, their hierarchy and the sizes of the images."""
    codes = [f"/m/{number:05d}" for number in range(len(CLASSES))]
    _rows(place, place.option("label_file", "labels.csv"), zip(codes, CLASSES))
    place.json(place.option("hierarchy_file", "hierarchy.json"),
               {"LabelName": "/m/root", "Subcategory": [{"LabelName": code} for code in codes]})  # fmt: skip
    rows = [["ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax", "IsOccluded",
             "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside"]]  # fmt: skip
    for picture in place.pictures:
        for thing in picture.things:
            x1, y1, x2, y2 = _relative(thing, picture)
            flags = ["0", "0", str(int(thing.crowd)), "0", "0"]
            label = codes[thing.label % len(codes)]
            rows.append([picture.path.stem, "xclick", label, "1", *map(str, (x1, x2, y1, y2)), *flags])
    _rows(place, place.config["ann_file"], rows)
    _open_images_sizes(place)


def _open_images_challenge(place: _Place) -> None:
    """A few lines for each image, and the hierarchy as a matrix."""
    rows = [(f"/m/{number:05d}", name, number + 1) for number, name in enumerate(CLASSES)]
    _rows(place, place.option("label_file", "labels.csv"), rows)
    with place.file(place.option("hierarchy_file", "tree.np")).open("wb") as file:
        np.save(file, np.eye(len(CLASSES) + 1))
    lines = []
    for number, picture in enumerate(place.pictures):
        lines += [_name(picture), str(number), str(len(picture.things))]
        for thing in picture.things:
            lines.append(" ".join(map(str, (thing.label % len(CLASSES) + 1, *_relative(thing, picture),
                                            int(thing.crowd)))))  # fmt: skip
    place.text(place.config["ann_file"], "\n".join(lines))
    _open_images_sizes(place)


def _open_images_sizes(place: _Place) -> None:
    sizes = []
    for picture in place.pictures:
        place.copy(picture, place.prefix("img"), _name(picture))
        sizes.append({"filename": _name(picture), "ori_shape": (picture.height, picture.width, 3)})
    mmengine.dump(sizes, place.file(place.option("meta_file", "sizes.pkl")))


def _relative(thing: Thing, picture: Picture) -> tuple[float, ...]:
    scale = (picture.width, picture.height) * 2
    return tuple(round(value / whole, 6) for value, whole in zip(thing.box, scale))


def _rows(place: _Place, name: str, rows: Any) -> None:
    with place.file(name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _reid(place: _Place) -> None:
    """Each object cut out, several times under one number."""
    lines: list[str] = []
    for picture in place.pictures:
        with Image.open(picture.path) as image:
            for thing in picture.things:
                number = len(lines)
                name = f"{number:04d}.jpg"
                image.convert("RGB").crop(thing.box).resize((64, 128)).save(place.file(place.prefix("img_path"), name))
                lines.append(f"{name} {number}")
    place.text(place.config["ann_file"], "\n".join(lines))


def _segmentation(place: _Place) -> None:
    """Images and maps of the same names in two folders."""
    for picture in place.pictures:
        place.copy(picture, place.prefix("img_path"), _name(picture))
        labels = np.zeros((picture.height, picture.width), dtype=np.uint8)
        for thing in picture.things:
            labels[thing.mask(picture.height, picture.width)] = place.label(thing)
        suffix = place.option("seg_map_suffix", ".png")
        Image.fromarray(labels).save(place.file(place.prefix("seg_map_path"), picture.path.stem + suffix))


def _unknown(place: _Place) -> None:
    place.text(place.config["ann_file"], "")


WRITERS: dict[str, Callable[[_Place], None]] = {
    "WIDERFaceDataset": _wider_face,
    "XMLDataset": _voc,
    "CrowdHumanDataset": _crowd_human,
    "ODVGDataset": _odvg,
    "OpenImagesChallengeDataset": _open_images_challenge,
    "OpenImagesDataset": _open_images,
    "ReIDDataset": _reid,
    "BaseVideoDataset": _video,
    "BaseSegDataset": _segmentation,
    "CocoPanopticDataset": _panoptic,
    "V3DetDataset": _v3det,
    "LVISV05Dataset": _lvis,
    "Objects365V2Dataset": _objects365_v2,
    "CocoDataset": _coco,
}
"""For a class of data sets, what writes one; the first that fits."""
