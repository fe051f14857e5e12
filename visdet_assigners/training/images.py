"""Images of a data set: only those below its root, of a size that fits into memory, whole, and named where they aren't.

mmdet follows any file name, decodes what 400 KB of PNG unfold to, fills up what a cut-off file lacks, and tells neither
path nor reason of an empty one.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import mmcv
from mmcv.transforms import LoadImageFromFile as LoadOfMMCV
from mmengine.fileio import get
from PIL import Image

from visdet_assigners.registry import TRANSFORMS

MAX_PIXELS = 2**26
"""Of an image, unless ``$VISDET_MAX_PIXELS`` says otherwise: 8192 x 8192."""
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
"""What a whole file holds at its end, and a cut-off one nowhere."""


class ImageError(Exception):
    """An image is not read; the message is one line with its path, the reason and what to do."""


def pixel_limit() -> int:
    """Return how many pixels an image may have.

    Raises:
        ImageError: ``$VISDET_MAX_PIXELS`` is no number.
    """
    text = os.environ.get("VISDET_MAX_PIXELS", str(MAX_PIXELS))
    if not text.isdecimal():
        raise ImageError(f"$VISDET_MAX_PIXELS is {text!r}; give a number of pixels, such as {MAX_PIXELS}")
    return int(text)


def size_fault(width: int, height: int) -> str | None:
    """Say what is wrong where an image has more pixels than we read."""
    if width * height > pixel_limit():
        return f"{width}x{height} pixels are more than {pixel_limit():,}; set VISDET_MAX_PIXELS where that is meant"
    return None


def leads_out(name: str) -> bool:
    """Whether a file name of a data set is absolute or leads upwards, on any system."""
    windows = PureWindowsPath(name)
    return PurePosixPath(name).is_absolute() or bool(windows.root or windows.drive) or ".." in windows.parts


def real_folders(roots: Iterable[str | Path]) -> list[str]:
    """Return the folders with their links followed, as `is_below` wants them."""
    return [os.path.join(os.path.realpath(root), "") for root in roots]


def is_below(path: str | Path, folders: Iterable[str]) -> bool:
    """Whether a path, its links followed, lies in or below one of the folders of `real_folders`."""
    return os.path.realpath(path).startswith(tuple(folders))


def header_fault(file: str | Path | BytesIO) -> str | None:
    """Read the header of an image and say what is wrong with it; None where it can be decoded."""
    return _header(file)[1]


def _header(file: str | Path | BytesIO) -> tuple[tuple[int, int, str] | None, str | None]:
    """Width, height and format of an image, or None, and what is wrong with it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we have our own limit
            with Image.open(file) as image:
                width, height, kind = *image.size, image.format or ""
    except Image.DecompressionBombError as error:
        return None, f"{error}"
    except (OSError, ValueError, SyntaxError) as error:  # PIL raises all of them for damaged headers
        unknown = f"it is no image that can be read ({str(error).partition(' <_io')[0]})"
        return None, "it is empty" if _is_empty(file) else unknown
    return (width, height, kind), size_fault(width, height)


def _is_empty(file: str | Path | BytesIO) -> bool:
    return not (file.getbuffer().nbytes if isinstance(file, BytesIO) else os.path.getsize(file))


def file_fault(content: bytes) -> str | None:
    """Say what is wrong with the file of an image before it is decoded; None where nothing is."""
    header, fault = _header(BytesIO(content))
    if fault is None and header is not None and content.rfind(ENDS.get(header[2], b"")) < 0:
        fault = "it is cut off"
    return fault


def mask_fault(mask: Any, pixels: int) -> str | None:
    """Say what is wrong with a mask in COCO's run lengths: it must fit into an image of so many pixels."""
    if not isinstance(mask, Mapping) or not mask:
        return None  # polygons are drawn into the image, and nothing is no mask
    size = mask.get("size")
    if not (isinstance(size, Sequence) and len(size) == 2 and all(isinstance(one, int) and one > 0 for one in size)):
        return f"size {size} is not [height, width]"
    if size[0] * size[1] > pixels:
        return f"{size[0]}x{size[1]} pixels are more than the image has"
    counts = mask.get("counts")
    if not isinstance(counts, list):
        return None if isinstance(counts, (str, bytes)) else "it has no counts"
    if not all(isinstance(one, int) and one >= 0 for one in counts) or sum(counts) != size[0] * size[1]:
        return f"its counts don't add up to {size[0]}x{size[1]} pixels"
    return None


@TRANSFORMS.register_module()
class LoadImageFromFile(LoadOfMMCV):
    """mmcv's ``LoadImageFromFile``, which looks at the path, the header and the masks before it decodes anything.

    Args:
        *args: as in mmcv's.
        roots: folders that images may lie in, links followed; None leaves the paths unchecked.
        on_bad: ``'stop'`` raises an error for an image that can't be read; ``'skip'`` tells its path once and lets a
            data set in training mode take another image.
        **kwargs: as in mmcv's.

    Raises:
        ImageError: see ``on_bad``.  A path outside the roots always raises it.
    """

    def __init__(self, *args: Any, roots: Sequence[str] | None = None, on_bad: str = "stop", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.roots = roots
        self._folders = None if roots is None else real_folders(roots)
        self.on_bad = on_bad
        self._told: set[str] = set()

    def transform(self, results: dict) -> dict | None:
        """Add ``img``, ``img_shape`` and ``ori_shape``; None for an image that is skipped."""
        path = results["img_path"]
        if self._folders is not None and not is_below(path, self._folders):
            raise ImageError(f"the image {path} lies outside {' and '.join(self.roots or [])}; mend the file name, or, "
                             "for a link, give a data_root that holds what it leads to")  # fmt: skip
        try:
            image = self._read(path, results)
        except ImageError as error:
            if self.ignore_empty:
                return None
            if self.on_bad != "skip":
                raise
            if path not in self._told:
                self._told.add(path)
                print(f"left out: {error}", file=sys.stderr)
            return None
        results["img"] = image.astype("float32") if self.to_float32 else image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results

    def _read(self, path: str, results: Mapping[str, Any]) -> Any:
        try:
            content = get(path, backend_args=self.backend_args)
        except OSError as error:
            raise ImageError(f"the image {path} can't be read: {error.strerror or error}") from error
        fault = file_fault(content)
        if fault is None:
            image = self._decode(content)
            fault = None if image is not None else "it can't be decoded"
        if fault is None:
            masks = (one.get("mask") for one in results.get("instances", []))
            faults = (mask_fault(mask, image.shape[0] * image.shape[1]) for mask in masks)
            fault = next((f"a mask of it: {one}" for one in faults if one), None)
        if fault is not None:
            raise ImageError(f"the image {path} can't be used: {fault}")
        return image

    def _decode(self, content: bytes) -> Any:
        """Decode; None where the backend can't."""
        try:
            return mmcv.imfrombytes(content, flag=self.color_type, backend=self.imdecode_backend)
        except Exception:  # cv2, PIL and turbojpeg have errors of their own
            return None
