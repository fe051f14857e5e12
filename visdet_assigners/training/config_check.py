"""One look at a config and its data, before anything is built from them: every command begins with it.

    from mmengine.config import Config
    from visdet_assigners.training.config_check import check_config, find_problems

    check_config(Config.fromfile("my_config.py"), ["train", "val"])  # raises one line, or prints what is to be known

No image is decoded, and no model is built.  `find_problems` returns what `check_config` says, and `look` what was seen.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

from visdet_assigners.errors import Problem, UserError
from visdet_assigners.registry import SCOPE, scope_and_name, typed_nodes
from visdet_assigners.training.annotations import AnnotationError, AnnotationReport, check_annotations
from visdet_assigners.training.classes import class_faults
from visdet_assigners.training.config_assigners import check_assigners, scope_of_model
from visdet_assigners.training.datasets import (
    DataSet,
    MissingFile,
    annotation_question,
    guard_images,
    meant_classes,
    missing_metric_files,
    read_datasets,
)
from visdet_assigners.training.heads import (
    class_count_problems,
    is_text_prompted,
    mask_problems,
    misspelt_keys,
    sampler_problems,
    train_cfgs,
)
from visdet_assigners.training.resolving import class_of

CHECKED = ("mmdet", "mmengine", "mmcv", "torch", SCOPE)
"""Packages whose classes are known to read no other keys than those that we know."""


def check_config(
    cfg: Config,
    phases: Sequence[str],
    bad_annotations: str = "skip",
    bad_images: str = "stop",
    headers: bool = False,
    images: bool = True,
) -> None:
    """Stop where a config or its data can't be used, and print what is to be known about them.

    From then on, images are read only below the root of their data set, and looked at before they are decoded: the
    steps of the config that read them are exchanged, see `visdet_assigners.training.datasets.guard_images`.

    Args:
        cfg: the config.
        phases: what is to be run, of ``'train'``, ``'val'``, ``'test'``; one whose loop is switched off (``val_cfg =
            None``) reads nothing.
        bad_annotations: ``'stop'`` where annotations that mmdet leaves out are a mistake; ``'skip'`` counts them.
        bad_images: what to do about an image to train on that can't be read: ``'stop'``, or ``'skip'``, which names it
            and takes another.
        headers: read the header of each image now.
        images: False where annotations are enough, so that the images need not be there.

    Raises:
        UserError: all that is wrong, in one line.
    """
    problems = find_problems(cfg, phases, bad_annotations, bad_images, headers, images)
    fatal = [str(problem) for problem in problems if problem.fatal]
    if fatal:
        numbered = [f"({number}) {one}" for number, one in enumerate(fatal, 1)]
        raise UserError(fatal[0] if len(fatal) == 1 else f"{len(fatal)} things are wrong: {'; '.join(numbered)}")
    for problem in problems:
        print(problem, file=sys.stderr)
    for phase in phases:
        guard_images(cfg, [phase], bad_images if phase == "train" else "stop")


def find_problems(
    cfg: Config,
    phases: Sequence[str],
    bad_annotations: str = "skip",
    bad_images: str = "stop",
    headers: bool = False,
    images: bool = True,
    annotations: bool = True,
) -> list[Problem]:
    """Look at a config and its data, and return what is wrong with them, or to be known; nothing is changed.

    Args:
        cfg: the config.
        phases: as in `check_config`.
        bad_annotations: likewise.
        bad_images: likewise.
        headers: likewise.
        images: likewise.
        annotations: False leaves the annotation files unread.
    """
    seen = look(cfg, phases, headers, images, annotations)
    problems = list(seen.problems)
    for one, report in seen.reports:
        problems += _annotation_problems(one, report, bad_annotations, bad_images)
    return _each_once(problems)


@dataclass
class Look:
    """What was seen.

    Attributes:
        problems: of the config, and of files that can't be read.
        reports: on what the annotation files hold, each with the data set that reads it; one for the same question.
    """

    problems: list[Problem] = field(default_factory=list)
    reports: list[tuple[DataSet, AnnotationReport]] = field(default_factory=list)


def look(
    cfg: Config, phases: Sequence[str], headers: bool = False, images: bool = True, annotations: bool = True
) -> Look:
    """Look at a config and its data; arguments as in `find_problems`."""
    model = cfg.get("model") or {}
    seen = Look()
    with DefaultScope.overwrite_default_scope(scope_of_model(cfg)):
        datasets = read_datasets(cfg, phases, images)
        seen.problems += [problem for one in datasets for problem in one.problems]
        seen.problems += missing_metric_files(cfg, phases)
        seen.problems += _misspelt(cfg, datasets)
        if annotations:
            seen.reports, unread = _read_annotations(cfg, datasets, headers, images)
            seen.problems += unread
        seen.problems += _unchecked(datasets)
        if not is_text_prompted(model):
            seen.problems += _different_classes(datasets)
        meant = {one.classes: meant_classes(one.classes, report.categories) for one, report in seen.reports
                 if one.classes and class_faults(report.categories, one.classes.names)}  # fmt: skip
        expected = [(meant.get(one.classes, one.classes), one.path) for one in datasets if one.classes is not None]
        for classes, path in dict(reversed(expected)).items():  # each once, where it is met first
            seen.problems += class_count_problems(model, path, classes)
        try:
            check_assigners(cfg)
        except UserError as error:
            seen.problems.append(Problem("", str(error)))
        seen.problems += sampler_problems(model)
        for one in datasets:
            if one.phase == "train":
                seen.problems += mask_problems(model, one.config, one.path)
    seen.problems = _each_once(seen.problems)
    return seen


def _read_annotations(
    cfg: Config, datasets: Sequence[DataSet], headers: bool, images: bool
) -> tuple[list[tuple[DataSet, AnnotationReport]], list[Problem]]:
    """Read the annotation files of the data sets that are there, each once for the same question."""
    asked: list[dict[str, Any]] = []
    reports, problems = [], []
    for one in datasets:
        question = annotation_question(cfg, one, images) if one.is_whole_coco and not one.problems else None
        if question is not None and question not in asked:
            asked.append(question)
            try:
                reports.append((one, check_annotations(**question, headers=headers)))
            except AnnotationError as error:
                problems.append(Problem("", str(error)))
    return reports, problems


def _annotation_problems(
    one: DataSet, report: AnnotationReport, bad_annotations: str, bad_images: str
) -> Iterator[Problem]:
    dropped, unreadable = ("; ".join(map(str, some)) for some in (report.dropped, report.unreadable))
    if report.fatal:
        yield Problem(report.path, "; ".join(map(str, report.fatal)))
    if unreadable:
        skipped = bad_images == "skip" and one.phase == "train"
        number = sum(len(defect.places) for defect in report.unreadable)
        yield Problem(
            report.path, f"{number} images are left out: {unreadable}" if skipped else unreadable, not skipped
        )
    if dropped:
        stop = bad_annotations == "stop"
        fate = "can't be used" if stop else "are left out"
        what = f"{report.num_dropped} annotations {fate}: {dropped}"
        yield Problem(report.path, what, stop)
    for defect in report.told:
        yield Problem(report.path, str(defect), fatal=False)


def _misspelt(cfg: Config, datasets: Sequence[DataSet]) -> list[Problem]:
    """Keys that nobody reads; certain where all that could read them is known."""
    from mmdet.registry import MODELS

    model = cfg.get("model") or {}
    classes = [class_of(MODELS, node) for _, node in typed_nodes(model, "model")]
    own = any(scope_and_name(cls)[0] not in CHECKED for cls in classes if cls is not None)
    found = [problem for path, part in train_cfgs(model, "model") for problem in misspelt_keys(part, path, "train_cfg")]
    problems = [Problem(one.where, one.what, fatal=not own) for one in found]
    problems += misspelt_keys(dict.fromkeys(cfg.keys()), "", "config")
    for one in datasets:
        for key in ("metainfo", "filter_cfg"):
            problems += misspelt_keys(one.config.get(key), f"{one.path}.{key}", key)
    return problems


def _unchecked(datasets: Sequence[DataSet]) -> Iterator[Problem]:
    """Tell of data sets whose annotations nobody looks at."""
    for one in datasets:
        if not one.is_whole_coco and not one.problems:
            name = scope_and_name(one.config.get("type"))[1] or "a data set without a type"
            where = "" if one.is_local else " outside the file system"
            yield Problem(
                one.path, f"the annotations of {name}{where} aren't looked at, only CocoDataset's", fatal=False
            )


def _different_classes(datasets: Sequence[DataSet]) -> Iterator[Problem]:
    """Compare the classes of the data sets with each other: a label must mean the same in all of them."""
    known = [(one, one.classes) for one in datasets if one.classes is not None]
    for second, of_second in known[1:]:
        first, of_first = known[0]
        if of_first.names != of_second.names:
            yield Problem(second.path, f"it has {of_second}, but {first.path} has {of_first}; give both the same "
                                       "metainfo=dict(classes=...), in the same order")  # fmt: skip


def _each_once(problems: Sequence[Problem]) -> list[Problem]:
    """Leave out what has been said: the same file is missing in train, val and evaluator, or the folder around it."""
    seen: dict[Any, Problem] = {}
    missing: tuple[str, ...] = ()
    for problem in problems:
        if isinstance(problem, MissingFile):
            if os.path.join(problem.path, "").startswith(missing):
                continue
            missing += (os.path.join(problem.path, ""),)
        seen.setdefault((problem.where, problem.what), problem)
    return list(seen.values())
