"""The config that a command works on, with its options and data root applied."""

from __future__ import annotations

import argparse
import importlib
import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.utils import import_modules_from_strings

from visdet_assigners.errors import UserError, check_file
from visdet_assigners.training.checkpoints import guard_mmengine
from visdet_assigners.training.config_assigners import apply_assigners


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
    """Read a config and import the modules that it asks for; checkpoints are read without code from then on.

    Args:
        path: of a file, or ``package::FAMILY/NAME.py`` for one that mmdet or another package of mmengine's ships.

    Raises:
        UserError: there is no such file, it doesn't run, or a module is missing.
    """
    guard_mmengine()
    try:  # a config is the user's code: whatever stops it is to be mended there
        if "::" in path:
            cfg = get_config(path)
        else:
            check_file(path, "config file", "check the path")
            cfg = Config.fromfile(path, import_custom_modules=False)
        import_modules_from_strings(**cfg.get("custom_imports", {"imports": []}))
    except UserError:
        raise
    except Exception as error:
        failed = re.match(r"Failed to import [\w.]+$", str(error.__cause__ or error))  # mmengine's word on one module
        if isinstance(error, ImportError) and failed:
            raise UserError(f"custom_imports of {path}: {failed[0]}; install its package, or add its folder to "
                            "PYTHONPATH") from error  # fmt: skip
        raise UserError(f"can't read the config {path}: {type(error).__name__}: {error}") from error
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
