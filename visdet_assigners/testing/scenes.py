"""Scenes to assign: drawn ones, and the boxes of real data sets, under every kind of prior."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from visdet_assigners.testing.instances import InstanceData
from visdet_assigners.testing.priors import anchor_levels, point_levels

NUM_CLASSES = 8
STRIDES = [8, 16, 32, 64, 128]


@dataclass(frozen=True)
class Objects:
    """Ground truths of one image: boxes (M, 4) xyxy, labels (M,), crowd regions (R, 4), image (height, width)."""

    name: str
    boxes: Tensor
    labels: Tensor
    crowds: Tensor
    image: tuple[int, int]
    num_classes: int = NUM_CLASSES

    @property
    def instances(self) -> InstanceData:
        """The ground truths as heads get them."""
        return InstanceData(bboxes=self.boxes, labels=self.labels)

    @property
    def ignore(self) -> InstanceData:
        """The crowd regions as heads get them."""
        return InstanceData(bboxes=self.crowds)


def generator(seed: int) -> torch.Generator:
    """A random generator of its own for each drawing."""
    return torch.Generator().manual_seed(seed)


def draw_boxes(count: int, image: tuple[int, int], kind: str, seed: int) -> Tensor:
    """Boxes of log-uniform size: "mixed", on an integer "grid" (ties), "small", or drawn "twice" (duplicates)."""
    g = generator(seed)
    height, width = image
    largest = {"small": 0.08, "grid": 0.5}.get(kind, 0.9)
    low, high = torch.log(torch.tensor([4.0, largest * min(image)]))
    size = (torch.rand(count, 2, generator=g) * (high - low) + low).exp()
    center = torch.rand(count, 2, generator=g) * torch.tensor([width, height])
    if kind == "grid":
        size, center = (size / 16).ceil() * 16, (center / 8).round() * 8
    boxes = torch.cat([center - size / 2, center + size / 2], dim=1)
    limit = torch.tensor([width, height, width, height])
    boxes = torch.minimum(boxes.clamp(min=0), limit)
    if kind == "twice":
        boxes = boxes[: (count + 1) // 2].repeat(2, 1)[:count]
    return boxes[((boxes[:, 2:] - boxes[:, :2]) > 2).all(dim=1)]


@cache
def drawn_objects() -> tuple[Objects, ...]:
    """Scenes of every kind of boxes in two sizes of image, and one without objects."""
    scenes = []
    seed = 0
    for image in ((240, 320), (301, 403)):
        for kind in ("mixed", "grid", "small", "twice"):
            for count in (1, 3, 12, 40):
                seed += 1
                boxes = draw_boxes(count, image, kind, seed)
                labels = torch.randint(NUM_CLASSES, (len(boxes),), generator=generator(seed + 1000))
                crowds = draw_boxes(2, image, "mixed", seed + 2000)
                scenes.append(Objects(f"{kind}-{count}-{image[1]}", boxes, labels, crowds, image))
    empty = torch.zeros(0, 4)
    scenes.append(Objects("empty", empty, torch.zeros(0, dtype=torch.long), empty, (240, 320)))
    return tuple(scenes)


def coco_objects(file: str | Path, limit: int, longest: int = 400) -> Iterator[Objects]:
    """Read images of a data set in COCO's format, from the emptiest to the fullest.

    Boxes are cut to their image; what has no pixel in each direction left is no object.

    Args:
        file: the annotations; the pictures themselves are not needed.
        limit: about how many images, evenly among all of them.
        longest: the longer side of an image in pixels; larger ones are shrunk.
    """
    data = json.loads(Path(file).read_text())
    index_of = {entry["id"]: index for index, entry in enumerate(data["categories"])}
    of_image: dict[int, list[dict]] = {entry["id"]: [] for entry in data["images"]}
    for annotation in data["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    images = sorted(data["images"], key=lambda entry: len(of_image[entry["id"]]))
    for entry in images[:: max(1, len(images) // limit)]:
        scale = min(1.0, longest / max(entry["width"], entry["height"]))
        limits = torch.tensor([entry["width"], entry["height"]]).repeat(2) * scale
        boxes, labels, crowd = [torch.zeros(0, 4)], [], []
        for annotation in of_image[entry["id"]]:
            x, y, width, height = annotation["bbox"]
            box = (torch.tensor([[x, y, x + width, y + height]]) * scale).clamp(min=0).minimum(limits)
            if ((box[:, 2:] - box[:, :2]) > 1).all():
                boxes.append(box)
                labels.append(index_of[annotation["category_id"]])
                crowd.append(bool(annotation.get("iscrowd", 0)))
        is_crowd = torch.tensor(crowd, dtype=torch.bool)
        yield Objects(
            f"{Path(file).stem}-{entry['id']}",
            torch.cat(boxes)[~is_crowd],
            torch.tensor(labels, dtype=torch.long)[~is_crowd],
            torch.cat(boxes)[is_crowd],
            (round(entry["height"] * scale), round(entry["width"] * scale)),
            num_classes=len(index_of),
        )


def feature_sizes(image: tuple[int, int], strides: list[int]) -> list[tuple[int, int]]:
    """Height and width of each level's feature map."""
    return [(-(-image[0] // stride), -(-image[1] // stride)) for stride in strides]


def anchors(objects: Objects, ratios: tuple[float, ...] = (1.0,), scale: int = 8) -> tuple[Tensor, list[int]]:
    """Anchors of five levels as dense heads make them: (N, 4) and the level sizes."""
    levels = anchor_levels(feature_sizes(objects.image, STRIDES), STRIDES, ratios, [scale])
    return torch.cat(levels), [len(level) for level in levels]


def points(objects: Objects) -> Tensor:
    """Points of three levels as YOLOX makes them: (N, 4) centre and stride."""
    strides = [8, 16, 32]
    priors = torch.cat(point_levels(feature_sizes(objects.image, strides), strides))
    return torch.cat([priors[:, :2] + priors[:, 2:] * 0.5, priors[:, 2:]], dim=-1)


def proposals(objects: Objects, count: int, seed: int) -> Tensor:
    """Boxes (count, 4) around the objects and anywhere, as an RPN or a DETR predicts them."""
    g = generator(seed)
    anywhere = draw_boxes(3 * count, objects.image, "mixed", seed)[:count]
    if len(objects.boxes):
        chosen = objects.boxes[torch.randint(len(objects.boxes), (count // 2,), generator=g)]
        size = (chosen[:, 2:] - chosen[:, :2]).repeat(1, 2)
        around = chosen + 0.2 * size * torch.randn(len(chosen), 4, generator=g)
        around = torch.cat([torch.minimum(around[:, :2], around[:, 2:] - 1), around[:, 2:]], dim=1)
        anywhere = torch.cat([around, anywhere[: count - len(around)]])
    return anywhere


def predicted_boxes(priors: Tensor, objects: Objects, seed: int) -> Tensor:
    """What a half-trained dense head predicts: some boxes near the objects, others near their priors."""
    g = generator(seed)
    boxes = priors + 4 * torch.randn(priors.shape, generator=g)
    if len(objects.boxes):
        chosen = objects.boxes[torch.randint(len(objects.boxes), (len(priors),), generator=g)]
        near = chosen + 3 * torch.randn(priors.shape, generator=g)
        boxes = torch.where(torch.rand(len(priors), 1, generator=g) < 0.3, near, boxes)
    return torch.cat([torch.minimum(boxes[:, :2], boxes[:, 2:]), torch.maximum(boxes[:, :2], boxes[:, 2:])], dim=1)


def logits(count: int, objects: Objects, seed: int) -> Tensor:
    """Class logits (count, C) of a half-trained head."""
    return 2 * torch.randn(count, objects.num_classes, generator=generator(seed)) - 2
