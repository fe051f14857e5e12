"""What the command-line tools share: their options, the config with its data root, whose assigners, and user errors."""

from __future__ import annotations

import argparse
import copy
import difflib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from mmengine.config import Config, DictAction
from mmengine.dist import get_dist_info
from mmengine.registry import RUNNERS, DefaultScope
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings
from torch import distributed as dist

import visdet_assigners.assigners  # noqa: F401  (registers our classes)
from visdet_assigners.annotations import AnnotationError, AnnotationReport, check_annotations
from visdet_assigners.checkpoints import (
    CheckpointError,
    check_sums,
    checkpoints_of,
    guard_mmengine,
    read_checkpoint,
    strays,
)
from visdet_assigners.images import ImageError
from visdet_assigners.registry import REGISTERED, SCOPE, is_ours

TIMEOUT = 600
"""Seconds that a process waits for the others where the config doesn't say: NCCL's default; gloo's is half an hour."""


class UserError(Exception):
    """A mistake of the user, told in one line: what was wrong and what to do."""


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn mistakes of the user into one line and exit status 2; anything else keeps its traceback.

    Besides `UserError`, which the checks of this module raise, and a checkpoint or an image that is not read, one error
    of mmengine is the user's for certain: a ``type`` that no registry knows.
    """
    try:
        yield
    except (UserError, CheckpointError) as error:
        message = str(error)
    except ImageError as error:  # that of a worker ends with the message, after the worker's traceback
        message = str(error).strip().splitlines()[-1].removeprefix(f"{ImageError.__module__}.ImageError: ")
    except KeyError as error:
        message = str(error.args[0]) if error.args else ""
        unknown = re.search(r"(\S+) is not in the (\S+ ?\S*) registry", message)
        if unknown is None:
            raise
        message = (
            f"the config asks for the type {unknown[1]}, but the {unknown[2]} registry doesn't have it; "
            "check the spelling, or import its module with custom_imports in the config"
        )
    else:
        return
    print(f"{Path(sys.argv[0]).name}: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


# ---------------------------------------------------------------------------------------------------------- options


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser that answers a wrong option with one line instead of its whole usage."""

    def error(self, message: str) -> NoReturn:
        """Print ``message`` and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message}; {self.prog} --help lists the options\n")


class ConfigOptions(DictAction):
    """mmengine's KEY=VALUE options, with a message where one isn't of that form."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        """Check the options and put them into the namespace."""
        for option in values:
            key, equals, value = option.partition("=")
            if not key or not equals:
                parser.error(f"{option_string} takes KEY=VALUE, not {option!r}")
            if value.count("[") != value.count("]") or value.count("(") != value.count(")"):
                parser.error(f"{option_string}: the brackets of {option!r} don't match")
        super().__call__(parser, namespace, values, option_string)


def add_config_arguments(parser: argparse.ArgumentParser, assigners: bool = True) -> None:
    """Add the config file and what changes it: ``--cfg-options`` and, unless a tool decides that, ``--assigners``."""
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=ConfigOptions,
        default={},
        metavar="KEY=VALUE",
        help="settings that replace those of the config, e.g. data_root=FOLDER model.backbone.depth=50; lists as "
        'KEY="[a,b]" without blanks. data_root reaches every data set and metric of the config',
    )
    if not assigners:
        return
    parser.add_argument(
        "--assigners",
        choices=["config", "visdet", "mmdet"],
        default="config",
        help="whose label assigners, match costs and IoU calculators to use: those the config names (default), ours "
        "wherever we have one of that name, or mmdet's",
    )


def add_runner_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where the results go and how several processes are started."""
    parser.add_argument("--work-dir", help="folder for logs and models (default: the config's, else work_dirs/CONFIG)")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none", help="job launcher")
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0, help="set by the launcher")


# ----------------------------------------------------------------------------------------------------------- config


def load_config(args: argparse.Namespace) -> Config:
    """Read the config file and apply the command line to it.

    Args:
        args: what `add_config_arguments` and, where the tool has them, `add_runner_arguments` parsed.

    Returns:
        The config. ``work_dir`` is, in this order, ``--work-dir``, the config's, ``work_dirs/CONFIG_NAME``.
    """
    check_installation()
    cfg = read_config(args.config)
    options = dict(args.cfg_options)
    set_data_root(cfg, options.pop("data_root", _data_root_from_environment(cfg)))
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError, IndexError) as error:  # a path through the config that isn't there
        reason = error.args[0] if error.args else error
        raise UserError(f"--cfg-options don't fit {args.config}: {reason}") from error

    if getattr(args, "work_dir", None):
        cfg.work_dir = args.work_dir
    elif not cfg.get("work_dir"):
        cfg.work_dir = os.path.join("work_dirs", Path(args.config).stem)
    cfg.launcher = getattr(args, "launcher", "none")
    os.environ.setdefault("LOCAL_RANK", str(getattr(args, "local_rank", 0)))
    apply_assigners(cfg, args.assigners)
    return cfg


def read_config(path: str) -> Config:
    """Read a config file and import the modules that it asks for; checkpoints are read without code from then on.

    Raises:
        UserError: there is no such file, it doesn't run, or a module is missing.
    """
    check_file(path, "config file", "check the path")
    guard_mmengine()
    try:  # a config is the user's code: whatever stops it is to be mended there
        cfg = Config.fromfile(path, import_custom_modules=False)
    except Exception as error:
        raise UserError(f"can't read the config {path}: {type(error).__name__}: {error}") from error
    try:
        import_modules_from_strings(**cfg.get("custom_imports", {"imports": []}))
    except ImportError as error:
        raise UserError(f"custom_imports of {path}: {error}; install it, or add its folder to PYTHONPATH") from error
    return cfg


def _data_root_from_environment(cfg: Config) -> str | None:
    """``$VISDET_NAME`` for a config that reads ``data/name``, such as ``$VISDET_COCO`` for mmdet's ``data/coco/``."""
    name = re.fullmatch(r"(?:\./)?data/(\w+)/?", str(cfg.get("data_root")))
    return os.environ.get(f"VISDET_{name[1].upper()}") if name else None


def set_data_root(cfg: Config, root: str | None) -> None:
    """Move every data set and metric of the config from its ``data_root`` to ``root``.

    A config computes its paths from ``data_root`` while it is read, so replacing that variable afterwards, as plain
    ``--cfg-options data_root=`` would, changes none of them.

    Args:
        cfg: changed in place.
        root: the new folder; None or the old one leaves the config as it is.
    """
    old = cfg.get("data_root")
    if root is None or root == old:
        return
    root = str(root)
    if not old:
        raise UserError("--cfg-options data_root: the config has no data_root; set each data set's own instead")
    prefix = os.path.join(str(old), "")

    def moved(value: Any) -> Any:
        if isinstance(value, Mapping):
            for key in value:
                value[key] = moved(value[key])  # type: ignore[index]
        elif isinstance(value, (list, tuple)):
            return type(value)(moved(item) for item in value)
        elif isinstance(value, str) and os.path.join(value, "").startswith(prefix):
            return os.path.join(root, value[len(prefix) :]) if value[len(prefix) :] else root
        return value

    for key, value in list(cfg.items()):
        if key == "data_root" or re.search("dataset|dataloader|evaluator", key):
            cfg[key] = moved(value)


# -------------------------------------------------------------------------------------------------------- assigners


def typed_nodes(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield ``(path, dict)`` for every dict with a ``type`` at or below ``value``."""
    if isinstance(value, Mapping):
        if "type" in value:
            yield path, value
        for key in value:
            yield from typed_nodes(value[key], f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from typed_nodes(item, f"{path}.{index}")


def apply_assigners(cfg: Config, which: str) -> None:
    """Make the assigners, match costs and IoU calculators of the config ours or mmdet's.

    Args:
        cfg: changed in place.
        which: ``'config'`` changes nothing; ``'visdet'`` gives mmdet's names our classes, also where a head writes
            the name in its code; ``'mmdet'`` undoes that, and asks mmdet for every type that is ours.
    """
    if which == "config":
        return
    from mmdet.registry import TASK_UTILS as MMDET

    MMDET.import_from_location()
    if which == "visdet":
        importlib.import_module(f"{SCOPE}.dropin").enable()
    elif f"{SCOPE}.dropin" in sys.modules:  # the config has imported it
        sys.modules[f"{SCOPE}.dropin"].restore()
    foreign, wanted = ("mmdet", SCOPE) if which == "visdet" else (SCOPE, "mmdet")
    for path, node in typed_nodes(cfg.get("model"), "model"):
        scope, name = scope_and_name(node["type"])
        if name not in REGISTERED or scope not in (foreign, "mmengine", ""):
            continue
        if which == "mmdet" and name not in MMDET.module_dict:
            raise UserError(f"--assigners mmdet: mmdet has no {name}, which the config names at {path}")
        # A class object reaches no registry, so it is replaced.  A name that the drop-in serves can stay, and a plain
        # one must: RepPointsHead asks whether its assigner's type reads PointAssigner, and trains otherwise if not.
        if (which == "mmdet" and scope) or not isinstance(node["type"], str):
            node["type"] = f"{wanted}.{name}"


def scope_and_name(kind: Any) -> tuple[str, str]:
    """Split ``'mmdet.X'`` or a class into the package and the name of the class."""
    if isinstance(kind, str):
        scope, _, name = kind.rpartition(".")
        return scope, name
    return getattr(kind, "__module__", "").partition(".")[0], getattr(kind, "__name__", "")


def assigner_nodes(cfg: Config) -> Iterator[tuple[str, Any]]:
    """Yield ``(path, dict)`` for every assigner of the model."""
    for path, node in typed_nodes(cfg.get("model") or {}, "model"):
        if re.search(r"assigner(\.\d+)?$", path):
            yield path, node


def check_assigners(cfg: Config) -> None:
    """Build each assigner of the model once, so that a wrong name or option is told before anything else is built.

    Raises:
        UserError: an assigner, a match cost or an IoU calculator that no registry has, or an argument or a value that
            its constructor refuses.
    """
    from mmdet.registry import TASK_UTILS

    model = cfg.get("model") or {}
    with DefaultScope.overwrite_default_scope(model.get("_scope_") or cfg.get("default_scope") or "mmdet"):
        for path, node in assigner_nodes(cfg):
            _check_types_and_options(path, node, TASK_UTILS)
            try:
                TASK_UTILS.build(copy.deepcopy(node))
            except (ValueError, AssertionError) as error:  # a value that the constructor refuses
                if not str(error):
                    raise
                raise UserError(f"{path}: {error}") from error


def _check_types_and_options(path: str, node: Mapping, registry: Any, inside_ours: bool = False) -> None:
    """Check ``node`` and the costs and calculators in it against the constructors of their classes.

    Our assigners take a cost or a calculator of ours where we have one of that name, with or without prefix.
    """
    options = {key: value for key, value in node.items() if key not in ("type", "_scope_")}
    with registry.switch_scope_and_registry(node.get("_scope_")) as scoped:
        kind = node["type"]
        if isinstance(kind, str):
            kind = (REGISTERED.get(kind) if inside_ours else None) or scoped.get(kind)
        if kind is None:
            raise UserError(f"{path}: there is no {node['type']} in the registry {scoped.scope}::{scoped.name}"
                            f"{_suggestion(node['type'], scoped)}")  # fmt: skip
        try:
            signature = inspect.signature(kind)
            signature.bind(**options)
        except TypeError as error:
            raise UserError(f"{path}: {kind.__name__}: {error}; its options are "
                            f"{', '.join(signature.parameters) or 'none'}") from error  # fmt: skip
        for key, value in options.items():
            for index, item in enumerate(value) if isinstance(value, (list, tuple)) else [("", value)]:
                if isinstance(item, Mapping) and "type" in item:
                    _check_types_and_options(f"{path}.{key}.{index}".rstrip("."), item, registry, is_ours(kind))


def _suggestion(kind: str, registry: Any) -> str:
    """The nearest names, with the scope that was asked for."""
    scope, name = scope_and_name(kind)
    known = REGISTERED if scope == SCOPE else {**registry.module_dict, **({} if scope else REGISTERED)}
    near = [f"{scope}.{other}".lstrip(".") for other in difflib.get_close_matches(name, known, n=3)]
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return "; check the spelling, or import its module with custom_imports in the config"


# ---------------------------------------------------------------------------------------- installation, files, data


def check_installation() -> None:
    """Raise `UserError` where mmdet is missing, or mmcv's operators, which a plain installation leaves out silently."""
    if find_spec("mmdet") is None or find_spec("mmcv") is None:
        raise UserError("mmdet or mmcv isn't installed here; bash tools/setup.sh installs all, and .venv/bin/python "
                        "then runs this tool")  # fmt: skip
    try:
        importlib.import_module("mmcv._ext")
    except ImportError as error:
        raise UserError(f"mmcv's compiled operators don't import ({error}); python tools/build_mmcv.py installs them, "
                        "for onedl-mmcv") from error  # fmt: skip


def check_file(path: str, what: str, advice: str) -> None:
    """Raise `UserError` where ``path``, called ``what``, is no file; addresses (``https://``) are left to mmengine."""
    if "://" not in path and not os.path.isfile(path):
        state = "is a folder" if os.path.isdir(path) else "doesn't exist"
        raise UserError(f"the {what} {path} {state}; {advice}")


def load_checkpoint(path: str, advice: str = "give a file such as work_dirs/CONFIG/epoch_12.pth") -> dict[str, Any]:
    """Load a checkpoint of mmengine without running any code that it might hold.

    Raises:
        UserError: there is no such file, it holds something else, or it is no checkpoint.
    """
    check_file(path, "checkpoint", advice)
    try:
        checkpoint = read_checkpoint(path)
    except CheckpointError as error:
        raise UserError(str(error)) from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"the checkpoint {path} holds a {type(checkpoint).__name__}; weights by name are expected")
    return checkpoint


def check_checkpoint(path: str | None, advice: str) -> None:
    """Read a checkpoint that mmengine will load later, so that one which is refused is told before anything is built.

    Addresses are read when they are needed; None is no checkpoint.
    """
    if path and "://" not in path:
        load_checkpoint(path, advice)


def checkpoint_to_resume(work_dir: str) -> str | None:
    """Find the newest checkpoint of a work folder that is whole, and tell which newer ones are not.

    Returns:
        Its path; None where there is none at all, and the training begins anew.

    Raises:
        UserError: there are some, and none can be read.
    """
    elsewhere = strays(work_dir)
    if elsewhere:
        print(f"last_checkpoint of {work_dir} points to {elsewhere}, which is not in that folder; not followed",
              file=sys.stderr)  # fmt: skip
    found = checkpoints_of(work_dir)
    for path in found:
        try:
            load_checkpoint(str(path))
            check_sums(path)
        except (UserError, CheckpointError) as error:
            print(f"not resumed from {path}: {error}", file=sys.stderr)
        else:
            return str(path)
    if found:
        raise UserError(f"no checkpoint in {work_dir} can be read; leave --resume out to start anew")
    return None


def use_safe_checkpoints(cfg: Config) -> None:
    """Let our hook write the checkpoints where the config has mmengine's, and stores them in the file system."""
    hook = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    if scope_and_name(hook.get("type"))[1] == "CheckpointHook" and not hook.get("backend_args"):
        hook["type"] = f"{SCOPE}.SafeCheckpointHook"


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
    """Let our transform read the images of the phases instead of mmcv's.

    Args:
        cfg: changed in place.
        phases: of ``'train'``, ``'val'``, ``'test'``.
        on_bad: what to do about an image that can't be read, see `visdet_assigners.images.LoadImageFromFile`.
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
    known = name == "LoadImageFromFile" and scope in ("", "mmcv", "mmdet", "mmengine", SCOPE)
    if not known or step.get("file_client_args"):
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


# ----------------------------------------------------------------------------------------------------------- runner


def build_runner(cfg: Config) -> Runner:
    """Build mmengine's runner, or the one that the config names; processes of torchrun also work without a GPU.

    A process waits for the others as many seconds as ``env_cfg.dist_cfg.timeout`` says, or `TIMEOUT`.
    """
    import torch
    from mmdet.utils import setup_cache_size_limit_of_dynamo

    setup_cache_size_limit_of_dynamo()
    if cfg.launcher != "none":
        cfg.setdefault("env_cfg", {}).setdefault("dist_cfg", {"backend": "nccl"}).setdefault("timeout", TIMEOUT)
    if cfg.launcher == "pytorch" and not torch.cuda.is_available():
        # mmengine's own set-up asks for a CUDA device, here and for the wrapper of the model.
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=cfg.env_cfg.dist_cfg.timeout))
        wrapper = {"type": "MMDistributedDataParallel", "device_ids": None, "broadcast_buffers": False}
        wrapper["find_unused_parameters"] = cfg.get("find_unused_parameters", False)
        cfg.setdefault("model_wrapper_cfg", wrapper)
    return RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)


@contextmanager
def lost_processes() -> Iterator[None]:
    """Say in one line that another process of the training is gone or hangs, and exit with status 1.

    At the end the processes wait for each other and part: one that leaves while its threads still talk may be aborted.
    """
    try:
        yield
        if dist.is_available() and dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()
    except RuntimeError as error:
        rank, size = get_dist_info()
        if size == 1 or not re.search("closed by peer|connection reset|timed out|timeout", str(error), re.IGNORECASE):
            raise
        reason = str(error).strip().splitlines()[0]
        print(f"{Path(sys.argv[0]).name}: process {rank} of {size} stops: another one is gone or hangs ({reason}); the "
              "reason is in what that one printed; mend it and go on with --resume", file=sys.stderr)  # fmt: skip
        sys.exit(1)
