"""A few iterations of a training through ``tools/train.py``, on a few images of a real data set, and what they did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.runner import Runner
from yapf.yapflib import yapf_api

from real.counting import FILE
from real.data_sets import DataSet
from toolbox import ROOT
from visdet_assigners.commands import train

CONFIGS = ROOT / "configs"
TINY_COCO = tuple(f"_base_/{part}.py" for part in ("datasets/tiny_coco", "schedules/schedule_12e", "default_runtime"))
"""What the base of a model is completed with, all of COCO's classes being its own."""


@dataclass(frozen=True)
class Training:
    """What one training left in its folder."""

    folder: Path
    images: list[int]
    losses: list[dict[str, float]]
    metrics: list[dict[str, float]]
    calls: list[dict]


def write_config(path: Path, bases: Sequence[str]) -> str:
    """A config for these tests: bases in ``configs/``, the counting hook, each iteration logged, no workers."""
    path.write_text(f"""\
_base_ = {[str(CONFIGS / base) for base in bases]}
custom_imports = dict(imports=["real.counting"], allow_failed_imports=False)
custom_hooks = [dict(type="CountAssignments")]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
log_processor = dict(window_size=1)
visualizer = dict(name={path.stem!r})
""")
    return str(path)


def run(
    data: DataSet,
    config: str,
    folder: Path,
    monkeypatch,
    *,
    images: int = 4,
    scale: str = "(160,120)",
    epochs: int = 1,
    as_process: bool = False,
) -> Training:
    """Train on the images of the data set that tell most, two at a time, then validate on two; one checkpoint each.

    Args:
        data: its root is told by the environment, as for every user.
        config: as `write_config` writes it.
        folder: to write into.
        monkeypatch: of pytest.
        images: how many.
        scale: of the images, pixels.
        epochs: over these images.
        as_process: through ``tools/train.py`` in a process of its own, else through its function.
    """
    numbers = data.train.telling(images)
    argv = [
        config, "--work-dir", str(folder), "--cfg-options",
        f"train_dataloader.dataset.indices=[{','.join(map(str, numbers))}]", "val_dataloader.dataset.indices=2",
        f"train_dataloader.dataset.pipeline.2.scale={scale}", f"val_dataloader.dataset.pipeline.1.scale={scale}",
        "model.test_cfg.score_thr=0.0",  # or an untrained network may find nothing, and nothing is evaluated
        f"train_cfg.max_epochs={epochs}", f"train_cfg.val_interval={epochs}",
    ]  # fmt: skip
    monkeypatch.setenv(data.variable, str(data.root))
    if as_process:
        where = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, str(ROOT / "tools" / "train.py"), *argv],
            capture_output=True, text=True, cwd=folder.parent, env={**os.environ, **where},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    else:
        # mmengine asks compilers and git for their versions, and lays out the config for its log, which takes longer.
        monkeypatch.setattr(Runner, "_log_env", lambda *_: None)
        monkeypatch.setattr(yapf_api, "FormatCode", lambda text, **_: (text, True))
        train.main(argv)
    (scalars,) = folder.glob("*/vis_data/scalars.json")
    rows = [json.loads(line) for line in scalars.read_text().splitlines()]
    calls = [json.loads(line) for line in (folder / FILE).read_text().splitlines()]
    ids = [data.train.image_ids[number] for number in numbers]
    losses = [row for row in rows if "loss" in row]
    return Training(folder, ids, losses, [row for row in rows if "coco/bbox_mAP" in row], calls)
