"""The command ``train``; `visdet_assigners.commands.parsers` says what it does."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.device import get_device

from visdet_assigners.commands import parsers
from visdet_assigners.commands.config import load_config
from visdet_assigners.commands.errors import user_errors
from visdet_assigners.errors import UserError
from visdet_assigners.training.config_check import check_config
from visdet_assigners.training.running import (
    build_runner,
    check_checkpoint,
    checkpoint_to_resume,
    lost_processes,
    use_safe_checkpoints,
)


def apply_options(cfg, args) -> None:
    """Put ``--amp``, ``--auto-scale-lr`` and ``--resume`` into the config."""
    if args.amp:
        if get_device() == "cpu":
            raise UserError("--amp needs a GPU and there is none; leave it out")
        cfg.optim_wrapper.type = "AmpOptimWrapper"
        cfg.optim_wrapper.loss_scale = "dynamic"
    if args.auto_scale_lr:
        scale = cfg.get("auto_scale_lr") or {}
        if "enable" not in scale or "base_batch_size" not in scale:
            raise UserError("--auto-scale-lr: the config says no auto_scale_lr = dict(enable=, base_batch_size=)")
        cfg.auto_scale_lr.enable = True
    if args.resume and args.resume != "auto":
        cfg.resume, cfg.load_from = True, args.resume
    if args.resume == "auto" or (cfg.get("resume") and not cfg.get("load_from")):
        cfg.load_from = checkpoint_to_resume(cfg.work_dir)
        cfg.resume = cfg.load_from is not None
    else:
        check_checkpoint(cfg.get("load_from"), "check the path, or leave it out")


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the command line says."""
    with user_errors():
        args = parsers.train().parse_args(argv)
        cfg = load_config(args)
        apply_options(cfg, args)
        use_safe_checkpoints(cfg)
        check_config(cfg, ["train", "val"], args.bad_annotations, args.bad_images, headers=args.check_images)
        with lost_processes():
            build_runner(cfg).train()
