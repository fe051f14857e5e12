"""The data sets that a config names: their files, annotations and images, checked before anything reads them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from visdet_assigners.errors import UserError
from visdet_assigners.registry import SCOPE, scope_and_name
from visdet_assigners.training.annotations import AnnotationError, AnnotationReport, check_annotations


def check_data(cfg: Config, phases: Sequence[str]) -> None:
    """Look for the data that the phases read: roots, annotation files and image folders.

    Args:
        cfg: the config.
        phases: of ``'train'``, ``'val'``, ``'test'``; one whose loop is switched off (``val_cfg = None``) reads none.

    From then on, images are read only below the root, and looked at before they are decoded: see `guard_images`.

    Raises:
        UserError: the first that is missing, or that would run code when it is read.
    """
    for phase in phases:
        if not cfg.get(f"{phase}_cfg"):
            continue
        name = f"{phase}_dataloader.dataset"
        for path, dataset in _leaf_datasets((cfg.get(f"{phase}_dataloader") or {}).get("dataset"), name):
            _check_dataset(path, dataset)
        evaluators = cfg.get(f"{phase}_evaluator") or []
        for metric in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
            if not metric.get("backend_args"):
                _check_path(f"{phase}_evaluator", "annotation file", metric.get("ann_file"))
    guard_images(cfg, phases)


def guard_images(cfg: Config, phases: Sequence[str], on_bad: str = "stop") -> None:
    """Let our transforms read the images of the phases instead of mmcv's, and the proposals instead of mmdet's.

    Args:
        cfg: changed in place.
        phases: of ``'train'``, ``'val'``, ``'test'``.
        on_bad: what to do about an image that can't be read, see `visdet_assigners.training.images.LoadImageFromFile`.
    """
    for phase in phases:
        for _, dataset in _leaf_datasets((cfg.get(f"{phase}_dataloader") or {}).get("dataset"), phase):
            root = dataset.get("data_root") or ""
            roots = [root] if root else []
            roots += [os.path.join(root, one) for one in (dataset.get("data_prefix") or {}).values() if one]
            local = not dataset.get("backend_args") and not any("://" in one for one in roots)
            more = {"on_bad": on_bad, **({"roots": roots} if roots and local else {})}
            if dataset.get("pipeline"):
                dataset["pipeline"] = [_guarded(step, more) for step in dataset["pipeline"]]  # type: ignore[index]


def _guarded(step: Mapping[str, Any], more: Mapping[str, Any]) -> Mapping[str, Any]:
    scope, name = scope_and_name(step.get("type"))
    if scope not in ("", "mmcv", "mmdet", "mmengine", SCOPE) or step.get("file_client_args"):
        return step
    if name == "LoadProposals":
        return {**step, "type": f"{SCOPE}.{name}"}
    if name != "LoadImageFromFile":
        return step
    return {**step, **more, "type": f"{SCOPE}.{name}"}


def check_annotation_files(
    cfg: Config, phases: Sequence[str], stop: bool = False, headers: bool = False, stop_at_images: bool = True
) -> None:
    """Check what the COCO files of the phases hold, and tell which annotations mmdet leaves out.

    Args:
        cfg: the config.
        phases: of ``'train'`` and ``'val'``; one whose loop is switched off reads none.
        stop: annotations that are left out are a mistake too.
        headers: read the header of each image.
        stop_at_images: an image whose header can't be read is a mistake; otherwise it is told.

    Raises:
        UserError: a file can't be used; the message has its defects.
    """
    for phase, dataset in coco_datasets(cfg, phases):
        report = check_dataset_annotations(dataset, headers)
        dropped, unreadable = ("; ".join(map(str, some)) for some in (report.dropped, report.unreadable))
        if report.fatal:
            raise UserError(f"{report.path}: {'; '.join(map(str, report.fatal))}")
        if unreadable and (stop_at_images or phase != "train"):
            raise UserError(f"{report.path}: {unreadable}")
        if dropped and stop:
            raise UserError(f"{report.path}: {report.num_dropped} annotations can't be used: {dropped}")
        if dropped:
            print(f"{report.path}: {report.num_dropped} annotations are left out: {dropped}", file=sys.stderr)
        if unreadable:
            number = sum(len(defect.places) for defect in report.unreadable)
            print(f"{report.path}: {number} images are left out: {unreadable}", file=sys.stderr)


def check_dataset_annotations(dataset: Mapping[str, Any], headers: bool = False) -> AnnotationReport:
    """Check the annotation file of one ``CocoDataset``, given as a config, and on demand the headers of its images."""
    from mmdet.datasets import CocoDataset

    root = dataset.get("data_root") or ""
    classes = (dataset.get("metainfo") or {}).get("classes", CocoDataset.METAINFO["classes"])
    images = os.path.join(root, (dataset.get("data_prefix") or {}).get("img", ""))
    try:
        return check_annotations(os.path.join(root, dataset["ann_file"]), images, classes, root, headers)
    except AnnotationError as error:
        raise UserError(str(error)) from error


def coco_datasets(cfg: Config, phases: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield phase and config of every local ``CocoDataset`` that the phases read."""
    for phase in phases:
        if not cfg.get(f"{phase}_cfg"):
            continue
        for _, dataset in _leaf_datasets((cfg.get(f"{phase}_dataloader") or {}).get("dataset"), phase):
            if scope_and_name(dataset.get("type"))[1] == "CocoDataset" and not dataset.get("backend_args"):
                yield phase, dataset


def _leaf_datasets(dataset: Any, path: str) -> Iterator[tuple[str, Mapping]]:
    """Yield the data sets that read files, from inside RepeatDataset, ConcatDataset, MultiImageMixDataset and such."""
    if not isinstance(dataset, Mapping):
        return
    inner = [("dataset", dataset.get("dataset"))]
    inner += [(f"datasets.{index}", item) for index, item in enumerate(dataset.get("datasets") or [])]
    inner = [(key, item) for key, item in inner if item is not None]
    for key, item in inner:
        yield from _leaf_datasets(item, f"{path}.{key}")
    if not inner:
        yield path, dataset


def _check_dataset(where: str, dataset: Mapping) -> None:
    if dataset.get("backend_args"):  # files that lie elsewhere than in the file system
        return
    root = dataset.get("data_root") or ""
    _check_path(where, "data root", root)
    for key in ("ann_file", "proposal_file"):
        path = str(dataset.get(key) or "")
        if path.lower().endswith((".pkl", ".pickle", ".yaml", ".yml")):
            raise UserError(f"the {key} {path} of {where} could run code when it is read; save its content as JSON")
    _check_path(where, "annotation file", dataset.get("ann_file"), root)
    prefix = dataset.get("data_prefix") or {}
    for key in prefix:
        if key.startswith("img"):
            _check_path(where, "image folder", prefix[key], root)


def _check_path(where: str, what: str, path: Any, root: str = "") -> None:
    if isinstance(path, str) and path and "://" not in root + path:
        path = os.path.join(root, path)
        if not os.path.exists(path):
            raise UserError(f"the {what} {path} of {where} doesn't exist; if your data lie elsewhere, say so with "
                            "--cfg-options data_root=FOLDER")  # fmt: skip
