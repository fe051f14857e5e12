"""The data sets that a config names: their files, annotations and images, checked before anything reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config

from visdet_assigners.errors import Problem, UserError
from visdet_assigners.registry import SCOPE, scope_and_name
from visdet_assigners.training.classes import Classes, classes_to_write, is_coco, read_classes
from visdet_assigners.training.dataset_tree import all_datasets, leaf_datasets, phase_dataset
from visdet_assigners.training.loading import loading_steps, loads
from visdet_assigners.training.resolving import class_of

PHASES = ("train", "val", "test")


@dataclass(frozen=True)
class MissingFile(Problem):
    """A file or folder that isn't there.

    Attributes:
        path: its own.
    """

    path: str = ""


@dataclass
class DataSet:
    """One data set that reads files, as a config names it.

    Attributes:
        phase: that reads it, of `PHASES`.
        path: in the config.
        config: its own.
        cls: its class; None if nobody knows it.
        classes: its classes; None where the config doesn't say them.
        problems: what is wrong with it before its annotations are read.
    """

    phase: str
    path: str
    config: Mapping[str, Any]
    cls: type | None
    classes: Classes | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def is_local(self) -> bool:
        """Whether its files lie in the file system."""
        return not self.config.get("backend_args") and "://" not in str(self.config.get("data_root"))

    @property
    def is_whole_coco(self) -> bool:
        """Whether its annotations can be checked: those of a local file that ``CocoDataset`` reads."""
        return self.is_local and bool(self.config.get("ann_file")) and is_coco(self.cls)


def read_datasets(cfg: Config, phases: Sequence[str], images: bool = True) -> list[DataSet]:
    """Find the data sets that the phases read, wherever wrappers nest them, with their classes.

    Args:
        cfg: the config.
        phases: of `PHASES`; one whose loop is switched off (``val_cfg = None``) reads none.
        images: whether their folders must be there.
    """
    from mmdet.registry import DATASETS

    found = []
    for phase in phases:
        if is_off(cfg, phase):
            continue
        for path, config in leaf_datasets(phase_dataset(cfg, phase), f"{phase}_dataloader.dataset"):
            one = DataSet(phase, path, config, class_of(DATASETS, config))
            try:
                one.classes = read_classes(config, one.cls)
            except UserError as error:
                one.problems.append(Problem(path, str(error)))
            one.problems += _missing_files(one, images)
            found.append(one)
    return found


def is_off(cfg: Config, phase: str) -> bool:
    """Whether the loop of a phase is switched off, as by ``val_cfg = None``; a config for tools alone may have none."""
    return f"{phase}_cfg" in cfg and cfg[f"{phase}_cfg"] is None


def missing_metric_files(cfg: Config, phases: Sequence[str]) -> Iterator[Problem]:
    """Yield the annotation files of the evaluators that are not there."""
    for phase in phases:
        for metric in metrics_of(cfg, phase):
            if not metric.get("backend_args"):
                yield from _check_path(f"{phase}_evaluator", "annotation file", metric.get("ann_file"))


def metrics_of(cfg: Config, phase: str) -> list[Mapping[str, Any]]:
    """Return the configs of the metrics of a phase; none where its loop is switched off."""
    evaluators = [] if is_off(cfg, phase) else cfg.get(f"{phase}_evaluator") or []
    found = list(evaluators) if isinstance(evaluators, (list, tuple)) else [evaluators]
    for evaluator in list(found):  # mmdet's MultiDatasetsEvaluator holds more
        inner = evaluator.get("metrics") if isinstance(evaluator, Mapping) else None
        found += inner if isinstance(inner, (list, tuple)) else [inner]
    return [one for one in found if isinstance(one, Mapping)]


def guard_images(cfg: Config, phases: Sequence[str], on_bad: str = "stop") -> None:
    """Let our transforms read the images of the phases instead of mmcv's, and the proposals instead of mmdet's.

    Args:
        cfg: changed in place.
        phases: of `PHASES`.
        on_bad: what to do about an image that can't be read, see `visdet_assigners.training.images.LoadImageFromFile`.
    """
    for phase in phases:
        for _, dataset in all_datasets(phase_dataset(cfg, phase), phase):
            root = dataset.get("data_root") or ""
            roots = [root] if root else []
            roots += [os.path.join(root, one) for one in (dataset.get("data_prefix") or {}).values() if one]
            local = not dataset.get("backend_args") and not any("://" in one for one in roots)
            more = {"on_bad": on_bad, **({"roots": roots} if roots and local else {})}
            if dataset.get("pipeline"):
                dataset["pipeline"] = [_guarded(step, more) for step in dataset["pipeline"]]


def _guarded(step: Mapping[str, Any], more: Mapping[str, Any]) -> Mapping[str, Any]:
    scope, name = scope_and_name(step.get("type"))
    if scope not in ("", "mmcv", "mmdet", "mmengine", SCOPE) or step.get("file_client_args"):
        return step
    if name == "LoadProposals":
        return {**step, "type": f"{SCOPE}.{name}"}
    if name != "LoadImageFromFile":
        return step
    return {**step, **more, "type": f"{SCOPE}.{name}"}


def annotation_question(cfg: Config, one: DataSet, images: bool = True) -> dict[str, Any]:
    """Return what `check_annotations` is to be asked about a data set: its arguments but for ``headers``.

    Args:
        cfg: the config.
        one: a data set of it.
        images: whether the images must be there.
    """
    root = one.config.get("data_root") or ""
    scored = [metric.get("metric") or "bbox" for metric in metrics_of(cfg, one.phase) if one.phase != "train"
              and scope_and_name(metric.get("type"))[1] == "CocoMetric" and metric.get("ann_file")
              and not metric.get("format_only")]  # fmt: skip
    taught = any(loads(step, "with_mask") for _, step, _ in loading_steps(one.config))
    masks = taught if one.phase == "train" else any("segm" in metric for metric in scored)
    return dict(
        path=os.path.join(root, one.config["ann_file"]),
        image_folder=os.path.join(root, (one.config.get("data_prefix") or {}).get("img", "")) if images else None,
        classes=one.classes.names if one.classes else None,
        data_root=root,
        masks=masks,
        scored=bool(scored),
        labelled=one.phase != "test",
    )


def meant_classes(classes: Classes, in_file: Sequence[str]) -> Classes:
    """Return the classes that a data set has once its ``metainfo`` fits its file."""
    return Classes(tuple(classes_to_write(in_file, classes.names)))


def _missing_files(one: DataSet, images: bool) -> list[Problem]:
    """What of a data set's files isn't there, or would run code when it is read; the first."""
    if not one.is_local:
        return []
    dataset = one.config
    root = dataset.get("data_root") or ""
    found = list(_check_path(one.path, "data root", root))
    for key in ("ann_file", "proposal_file"):
        value = dataset.get(key)
        if isinstance(value, (list, tuple)):
            found.append(Problem(one.path, f"{key} is a list, which mmdet 2 took; make a ConcatDataset whose datasets "
                                           "are one for each file"))  # fmt: skip
        elif str(value or "").lower().endswith((".pkl", ".pickle", ".yaml", ".yml")):
            what = f"the {key} {value} of {one.path} could run code when it is read; save its content as JSON"
            found.append(Problem("", what))
    found += _check_path(one.path, "annotation file", dataset.get("ann_file"), root)
    prefix = dataset.get("data_prefix") or {}
    if one.is_whole_coco and "img" not in prefix:
        found.append(Problem(f"{one.path}.data_prefix", 'it has no img, the folder of the images; write data_prefix='
                                                        'dict(img="images/"), or img="" for data_root'))  # fmt: skip
    for key in prefix if images else ():
        if key.startswith("img"):
            found += _check_path(one.path, "image folder", prefix[key], root)
    return found[:1]


def _check_path(where: str, what: str, path: Any, root: str = "") -> Iterator[Problem]:
    if isinstance(path, str) and path and "://" not in root + path:
        path = os.path.join(root, path)
        if not os.path.exists(path):
            text = f"the {what} {path} of {where} doesn't exist"
            advice = "if your data lie elsewhere, say so with --cfg-options data_root=FOLDER"
            yield MissingFile("", f"{text}; {advice}", path=path)
