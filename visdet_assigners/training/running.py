"""Running a training: its checkpoints, mmengine's runner, and processes that are lost."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_dist_info
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import distributed as dist

from visdet_assigners.errors import UserError, check_file
from visdet_assigners.registry import SCOPE, scope_and_name
from visdet_assigners.training.checkpoints import (
    CheckpointError,
    check_sums,
    checkpoints_of,
    read_checkpoint,
    strays,
)

TIMEOUT = 600
"""Seconds that a process waits for the others where the config doesn't say: NCCL's default; gloo's is half an hour."""


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
