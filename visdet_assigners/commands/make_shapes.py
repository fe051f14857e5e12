"""The command ``make-shapes``; `visdet_assigners.commands.parsers` says what it does."""

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from tqdm import tqdm

from visdet_assigners.commands import parsers

CLASSES = ("circle", "rectangle", "triangle", "star")
SPLITS = ("train", "val")
EMPTY_EVERY = 10  # one picture in ten holds no object
CROWD_EVERY = 6  # one picture in six holds a crowd region
MIN_VISIBLE = 0.5  # share of a shape that later shapes leave to be seen
MAX_RADIUS = 0.22  # of the picture's shorter side
MIN_SMALLEST = 4  # pixels across
MIN_PIXELS = 12  # of a visible mask; fewer cannot be told from noise
PLACEMENT_TRIES = 20
MIN_SIDE = 32  # pixels of a picture's shorter side
MOST_SHAPES, MOST_PLAIN_SHAPES = 10, 5  # in a picture
PLAIN_COLORS = ((60, 20, 220), (225, 105, 65), (0, 215, 255), (113, 179, 60))  # of the classes, blue green red


def draw_background(rng: np.random.Generator, width: int, height: int, plain: bool) -> np.ndarray:
    """Uneven light in two dull colours and, unless plain, a few thin lines: (height, width, 3) float32, 0 to 255."""
    patches = rng.random((4, 5, 1), dtype=np.float32)
    blend = cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    colors = rng.uniform(60, 180, (2, 3)).astype(np.float32)
    image = colors[0] * blend + colors[1] * (1 - blend)
    for _ in range(0 if plain else rng.integers(0, 5)):
        start, end = rng.integers(0, (width, height), (2, 2)).tolist()
        cv2.line(image, start, end, rng.uniform(40, 200, 3).tolist(), 1)
    return image


def outline(rng: np.random.Generator, name: str, radius: float) -> np.ndarray:
    """Corners of a shape around the origin at a random angle: (P, 2) float, pixels."""
    turn = rng.uniform(0, 2 * np.pi)
    angles: NDArray[Any]
    radii: NDArray[Any]
    if name == "circle":
        angles, radii = np.linspace(0, 2 * np.pi, 48, endpoint=False), np.ones(48)
    elif name == "rectangle":
        half = np.arctan(rng.uniform(0.5, 1))
        angles, radii = np.array([half, np.pi - half, np.pi + half, -half]), np.ones(4)
    elif name == "triangle":
        angles, radii = np.arange(3) * 2 * np.pi / 3, np.ones(3)
    else:
        angles, radii = np.arange(10) * np.pi / 5, np.tile([1.0, 0.45], 5)
    return radius * radii[:, None] * np.stack([np.cos(angles + turn), np.sin(angles + turn)], 1)


def draw_mask(corners: np.ndarray, width: int, height: int) -> np.ndarray:
    """Pixels inside a polygon: (height, width) bool."""
    canvas = np.zeros((height, width), np.uint8)
    cv2.fillPoly(canvas, [np.round(corners).astype(np.int32)], 1)
    return canvas.astype(bool)


def paint(rng: np.random.Generator, image: np.ndarray, mask: np.ndarray) -> None:
    """Fill the mask in place: one colour, striped in half of the cases."""
    color = rng.uniform(0, 255, 3).astype(np.float32)
    step, phase, slope = rng.uniform(4, 12), rng.uniform(0, 6), rng.uniform(-1, 1)
    if rng.random() < 0.5:
        rows, columns = np.nonzero(mask)
        light = 0.75 + 0.25 * np.sign(np.sin((rows + slope * columns) * 2 * np.pi / step + phase))
        image[mask] = color * light[:, None].astype(np.float32)
    else:
        image[mask] = color


def draw_crowd(rng: np.random.Generator, image: np.ndarray) -> tuple[int, np.ndarray]:
    """Draw a heap of small shapes of one class in place; returns the class (0-based) and the mask of the heap."""
    height, width = image.shape[:2]
    category = int(rng.integers(len(CLASSES)))
    unit = min(width, height)
    center = rng.uniform((0.2 * width, 0.2 * height), (0.8 * width, 0.8 * height))
    heap = np.zeros((height, width), bool)
    for _ in range(rng.integers(12, 25)):
        middle = center + rng.normal(0, 0.08 * unit, 2)
        mask = draw_mask(middle + outline(rng, CLASSES[category], rng.uniform(0.02, 0.04) * unit), width, height)
        paint(rng, image, mask)
        heap |= mask
    return category, heap


def draw_picture(
    rng: np.random.Generator,
    width: int,
    height: int,
    smallest: float,
    with_shapes: bool,
    with_crowd: bool,
    plain: bool = False,
) -> tuple[np.ndarray, list[tuple[int, np.ndarray, bool]]]:
    """Draw one picture: (height, width, 3) uint8 and its objects as (class, visible mask, is a crowd).

    ``smallest`` is what the smallest shape outside a crowd measures across, in pixels.
    """
    image = draw_background(rng, width, height, plain)
    objects: list[tuple[int, np.ndarray, bool]] = []
    full_areas: list[int] = []
    if with_crowd:
        category, heap = draw_crowd(rng, image)
        objects.append((category, heap, True))
        full_areas.append(int(heap.sum()))
    unit = min(width, height)
    most = MOST_PLAIN_SHAPES if plain else MOST_SHAPES
    for _ in range(rng.integers(1, most + 1) if with_shapes else 0):
        category = int(rng.integers(len(CLASSES)))
        # Evenly spread in the logarithm: as many small shapes as large ones.
        radius = np.exp(rng.uniform(np.log(smallest / 2), np.log(MAX_RADIUS * unit)))
        for _ in range(PLACEMENT_TRIES):
            corners = rng.uniform((0, 0), (width, height)) + outline(rng, CLASSES[category], radius)
            mask = draw_mask(corners, width, height)
            left = [(visible & ~mask).sum() for _, visible, _ in objects]
            covered = any(n < max(MIN_VISIBLE * full, MIN_PIXELS) for n, full in zip(left, full_areas))
            if mask.sum() >= MIN_PIXELS and not covered:
                if plain:
                    image[mask] = PLAIN_COLORS[category]
                else:
                    paint(rng, image, mask)
                objects = [(c, visible & ~mask, crowd) for c, visible, crowd in objects]
                objects.append((category, mask, False))
                full_areas.append(int(mask.sum()))
                break
    image = cv2.GaussianBlur(image, (3, 3), 0) + rng.normal(0, 8, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), objects


def annotate(category: int, mask: np.ndarray, crowd: bool, rotated: bool = False) -> dict:
    """Turn a visible mask into COCO's fields: box xywh in pixels, area, RLE (a plain list for a crowd, as in COCO).

    If ``rotated``, a polygon takes the place of the RLE: the four corners of the smallest rotated box around the mask.
    """
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    rle: Any
    if rotated:
        rows, columns = np.nonzero(mask)
        corners = cv2.boxPoints(cv2.minAreaRect(np.stack([columns, rows], axis=1).astype(np.float32)))
        rle = [corners.flatten().round(2).tolist()]
    elif crowd:
        runs = mask.ravel(order="F")
        edges = np.flatnonzero(np.diff(runs)) + 1
        counts = np.diff([0, *edges, runs.size]).tolist()
        rle = {"size": list(mask.shape), "counts": [0, *counts] if runs[0] else counts}
    else:
        rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        rle["counts"] = rle["counts"].decode()
    return {
        "category_id": category + 1,
        "bbox": [x, y, w, h],
        "area": int(mask.sum()),
        "segmentation": rle,
        "iscrowd": int(crowd),
    }


def make_split(
    out_dir: Path,
    split: str,
    count: int,
    width: int,
    height: int,
    smallest: float,
    seed: int,
    plain: bool,
    rotated: bool = False,
) -> None:
    """Write the pictures and the annotation file of one split."""
    image_dir = out_dir / "images" / split
    image_dir.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i in tqdm(range(count), desc=split, unit="picture"):
        rng = np.random.default_rng([seed, SPLITS.index(split), i])
        empty = i % EMPTY_EVERY == EMPTY_EVERY - 1
        crowd = i % CROWD_EVERY == CROWD_EVERY - 1 and not (empty or plain or rotated)
        picture, objects = draw_picture(rng, width, height, smallest, not empty, crowd, plain)
        name = f"{i:06d}.jpg"
        (image_dir / name).write_bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
        images.append({"id": i + 1, "file_name": name, "width": width, "height": height})
        for shape in objects:
            annotations.append({"id": len(annotations) + 1, "image_id": i + 1, **annotate(*shape, rotated)})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    annotation_dir = out_dir / "annotations"
    annotation_dir.mkdir(exist_ok=True)
    (annotation_dir / f"{split}.json").write_text(json.dumps(content))


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and write both splits; returns the exit status."""
    args = parsers.make_shapes().parse_args(argv)
    width, height = args.size
    problem = None
    if min(args.train, args.val) < 1:
        problem = "--train and --val must be at least 1: an empty split can be neither trained on nor evaluated"
    elif min(width, height) < MIN_SIDE:
        problem = f"--size {width} {height} is too small: give at least {MIN_SIDE} {MIN_SIDE}"
    elif not MIN_SMALLEST <= args.smallest <= 2 * MAX_RADIUS * min(width, height):
        largest = int(2 * MAX_RADIUS * min(width, height))
        problem = f"--smallest {args.smallest:g}: give {MIN_SMALLEST} to {largest} in pictures of {width}x{height}"
    elif args.seed < 0:
        problem = f"--seed {args.seed} is negative: give 0 or more"
    else:
        try:
            for split in SPLITS:
                count = getattr(args, split)
                make_split(
                    args.out_dir, split, count, width, height, args.smallest, args.seed, args.plain, args.rotated
                )
        except OSError as error:
            problem = f"cannot write to {args.out_dir} ({error.strerror}): give a folder that can be written to"
    if problem:
        print(f"make_shapes: {problem}", file=sys.stderr)
        return 2
    print(f"{args.train} + {args.val} pictures of {width}x{height} pixels in {args.out_dir}")
    return 0
