"""The classes of a data set: as its config gives them, and as mmdet numbers them by the annotation file.

mmdet's ``CocoDataset`` takes those categories of the file whose names the config has, and numbers them in the order of
the *file*.  So names in another order, or one name that the file lacks, give each object the label of another class.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.fileio import list_from_file

from visdet_assigners.errors import UserError

LONGEST_LINE = 100
"""Classes up to which the line to write is told whole."""

Fault = tuple[str, list[str], str]
"""What is wrong with the classes, which of them, and what to do."""


@dataclass(frozen=True)
class Classes:
    """The classes of a data set.

    Attributes:
        names: in the order of the config.
        things: how many of them are things, in a panoptic data set; None elsewhere, or where the config doesn't say.
        stuff: how many are stuff; likewise.
        panoptic: whether it is one.
    """

    names: tuple[str, ...]
    things: int | None = None
    stuff: int | None = None
    panoptic: bool = False

    def __str__(self) -> str:
        more = f" and {len(self.names) - 5} more" if len(self.names) > 6 else ""
        shown = self.names[:5] if more else self.names
        return f"{len(self.names)} class{'es' if len(self.names) != 1 else ''} ({', '.join(map(str, shown))}{more})"


def read_classes(dataset: Mapping[str, Any], cls: type | None) -> Classes | None:
    """Read the classes of a data set as mmengine's ``BaseDataset`` does: names, or a text file with one on each line.

    Args:
        dataset: its config.
        cls: its class, whose ``METAINFO`` holds where the config says nothing; None if nobody knows it.

    Returns:
        The classes; None where they stand elsewhere, as in a label map.

    Raises:
        UserError: ``metainfo`` is none; the message says why, without the place.
    """
    given = dataset.get("metainfo")
    if given is not None and not isinstance(given, Mapping):
        raise UserError(f"metainfo is {given!r}; write {line_to_write(['cat', 'dog'])}")
    known = getattr(cls, "METAINFO", None) if _is_detection(cls) else None
    metainfo = {**(known or {}), **({} if given is None else {key: given[key] for key in given})}
    names = metainfo.get("classes")
    if isinstance(names, str):
        names = _names_in_file(names)
    if not isinstance(names, (list, tuple)) or not names:
        return None
    if not all(isinstance(name, (str, int, float)) for name in names):
        raise UserError(f"classes are {names!r}; write names: {line_to_write(['cat', 'dog'])}")
    panoptic = "thing_classes" in metainfo
    told = panoptic and ("classes" not in (given or ()) or "thing_classes" in (given or ()))
    things, stuff = (len(metainfo.get(key) or ()) if told else None for key in ("thing_classes", "stuff_classes"))
    return Classes(tuple(names), things, stuff, panoptic)


def _is_detection(cls: type | None) -> bool:
    """Whether ``METAINFO`` holds: MOTChallenge's lists what it doesn't load, YouTube-VIS makes its own later."""
    from mmdet.datasets import BaseDetDataset

    return cls is not None and issubclass(cls, BaseDetDataset)


def _names_in_file(path: str) -> list[str]:
    try:
        names = list_from_file(path)
    except (TypeError, FileNotFoundError) as error:
        if path.endswith(".txt") or "/" in path:
            raise UserError(f"the file of classes {path} doesn't exist; its path is that from the folder where you "
                            "start, not from data_root") from error  # fmt: skip
        raise UserError(f"classes is the text {path!r}; a single class needs a comma: write "
                        f"{line_to_write([path])}") from error  # fmt: skip
    except (OSError, ValueError) as error:
        raise UserError(f"the file of classes {path} can't be read: {error}") from error
    if "" in names:
        raise UserError(f"line {names.index('') + 1} of the file of classes {path} is empty, which mmdet takes for a "
                        "class; remove it")  # fmt: skip
    return names


def label_order(in_file: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Return the names of the labels 0, 1, ... that mmdet gives.

    Example:
        >>> label_order(["RBC", "WBC", "Platelets"], classes=["Platelets", "RBC"])
        ['RBC', 'Platelets']
    """
    return [name for name in in_file if name in classes]


def line_to_write(names: Sequence[str]) -> str:
    """Return the ``metainfo`` of a config that has these classes.

    Example:
        >>> line_to_write(["RBC"])
        'metainfo=dict(classes=("RBC",))'
    """
    texts = [json.dumps(name, ensure_ascii=False) for name in names[:LONGEST_LINE]]
    if len(names) > LONGEST_LINE:
        texts.append(f"... and so on, all {len(names)}")
    return f"metainfo=dict(classes=({', '.join(texts)}{',' if len(names) == 1 else ''}))"


def class_faults(in_file: Sequence[str], classes: Sequence[str]) -> list[Fault]:
    """Find why the labels of a COCO file would not be the numbers of the classes.

    Args:
        in_file: names of the categories, in the order of the file.
        classes: those that the config gives, in its order.
    """
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        return [("classes that the config names twice", twice, "name each once")]
    given = label_order(in_file, classes)
    line = f"write {line_to_write(classes_to_write(in_file, classes))}"
    missing = [name for name in classes if name not in in_file]
    if missing:
        there = ", ".join(map(str, in_file[:10])) + (", ..." if len(in_file) > 10 else "")
        return [(f"classes that no category of the file bears (it has {there})", missing, f"{line}, or mend the file")]
    doubled = [name for name, count in Counter(given).items() if count > 1]
    if doubled:
        return [("categories of the same name, each of which gets a label", doubled, "make one of them in the file")]
    swapped = [f"label {label} is {is_} in the file and {called} in the config"
               for label, (is_, called) in enumerate(zip(given, classes)) if is_ != called]  # fmt: skip
    if swapped:
        what = "classes in another order than the categories of the file, by which mmdet numbers the labels"
        return [(what, swapped, line)]
    return []


def classes_to_write(in_file: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Return the classes that the config most likely means, in the order of the file: with misspellings mended.

    All of the file's where it has less than half of them: the config says nothing, or is another data set's.
    """
    meant = {name for name in classes if name in in_file}
    if 2 * len(meant) < len(classes):
        return list(dict.fromkeys(in_file))
    by_lower = {str(name).lower(): name for name in in_file if name not in meant}
    for name in classes:
        if name not in meant:
            near = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.8)
            meant.update(by_lower[one] for one in near)
    return list(dict.fromkeys(name for name in in_file if name in meant))


def names_of(dataset: Any) -> tuple[str, ...]:
    """Return the classes of a data set that is built, by label; none where joined data sets name theirs differently."""
    metainfo = getattr(dataset, "metainfo", None) or {}
    every = metainfo if isinstance(metainfo, (list, tuple)) else [metainfo]
    names = [tuple(one.get("classes") or ()) for one in every]
    return names[0] if names and all(other == names[0] for other in names) else ()


def is_coco(cls: type | None) -> bool:
    """Whether a data set reads annotations, and numbers its labels, as ``CocoDataset`` does.

    True for one that changes nothing but the classes, such as ``CityscapesDataset``.
    """
    from mmdet.datasets import CocoDataset

    if cls is None or not issubclass(cls, CocoDataset):
        return False
    return all(getattr(cls, one) is getattr(CocoDataset, one) for one in ("load_data_list", "parse_data_info"))
