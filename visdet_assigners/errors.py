"""What is wrong with inputs, configs and data: the error of assigners, and a user's mistakes as commands tell them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class UserError(Exception):
    """A mistake of the user, told in one line: what was wrong and what to do."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a config or its data; as text, one line.

    Attributes:
        where: path in the config, such as ``model.bbox_head``, or a file; may be empty.
        what: is wrong, and what to do.
        fatal: whether it stops a training or makes it wrong; otherwise it is to be known.
    """

    where: str
    what: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


def check_file(path: str, what: str, advice: str) -> None:
    """Raise `UserError` where ``path``, called ``what``, is no file; addresses (``https://``) are left to mmengine."""
    if "://" not in path and not os.path.isfile(path):
        state = "is a folder" if os.path.isdir(path) else "doesn't exist"
        raise UserError(f"the {what} {path} {state}; {advice}")


class AssignerInputError(ValueError):
    """An input can't be assigned.

    Attributes:
        assigner: name of the class, or of the function.
        field: what was wrong, as ``gt_instances.bboxes``; empty where it is no field.
        index: of the first bad entry or row, empty where it is not one of them.
        value: that entry or row, None likewise.
        image: path or number of the image, None where it isn't known.
    """

    def __init__(
        self,
        assigner: str,
        text: str = "",
        field: str = "",
        index: Sequence[int] = (),
        value: Any = None,
        image: Any = None,
    ) -> None:
        # A registry may build the error again from its text alone.
        named = f"{assigner}: {text}" if text else assigner
        super().__init__(named + ("" if image is None else f" (image {image})"))
        self.assigner = assigner
        self.field = field
        self.index = tuple(index)
        self.value = value
        self.image = image


def image_of(sources: Sequence[Any]) -> Any:
    """Path of the image, or its number, from the first of the sources that has it: meta data, or instances with it."""
    for source in sources:
        meta: Any = source if isinstance(source, Mapping) else getattr(source, "metainfo", None)
        for key in ("img_path", "img_id") if isinstance(meta, Mapping) else ():
            if meta.get(key) is not None:
                return meta[key]
    return None
