#!/usr/bin/env python
"""Give mmrotate's detectors a training step with mmdet's assigners and with ours, and compare every loss to the bit.

    python tools/step_rotated.py                          # a config of each detector, as the page has them
    python tools/step_rotated.py 's2anet/*' 'roi_trans/roi-trans-le90_r50_fpn_1x_dota.py'

Both start from the same random weights and see the same two images of noise with rotated boxes; ResNet-50 is made
ResNet-18, and RotatedIoULoss, which needs a GPU, another loss of the same boxes.  Where an operator needs a GPU, the
table says so.  Exits with 1 where losses differ.
"""

from __future__ import annotations

import copy
import logging
import random
import sys
import warnings
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData

from visdet_assigners import dropin
from visdet_assigners.commands.errors import user_errors
from visdet_assigners.errors import UserError
from visdet_assigners.observe.tap import find_assigners
from visdet_assigners.registry import is_ours, scope_and_name, typed_nodes
from visdet_assigners.testing.packages import configs_of, load_package, turned

PACKAGE = "mmrotate"
SIDE = 160
BOXES = ([[8.0, 8.0, 72.0, 40.0], [90.0, 30.0, 150.0, 60.0], [30.0, 90.0, 54.0, 106.0]], [[20.0, 10.0, 130.0, 80.0]])
"""Of two images, xyxy before they are turned."""
STAND_INS = {"RotatedATSSAssigner": "mmdet.ATSSAssigner"}
"""Assigners of mmrotate's own, and which of ours stands in for each."""
LOSS = dict(type="GDLoss", loss_type="kld", fun="log1p", tau=1, loss_weight=1.0)
"""In place of RotatedIoULoss, which mmcv has for a GPU alone; it is given the same boxes."""
ONE_OF_EACH = (
    "rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota.py",
    "rotated_retinanet/rotated-retinanet-hbox-le90_r50_fpn_1x_dota.py",
    "rotated_faster_rcnn/rotated-faster-rcnn-le90_r50_fpn_1x_dota.py",
    "rotated_atss/rotated-atss-le90_r50_fpn_1x_dota.py",
    "oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota.py",
    "roi_trans/roi-trans-le90_r50_fpn_1x_dota.py",
    "s2anet/s2anet-le135_r50_fpn_1x_dota.py",
    "r3det/r3det-oc_r50_fpn_1x_dota.py",
    "gliding_vertex/gliding-vertex-rbox_r50_fpn_1x_dota.py",
    "gliding_vertex/gliding-vertex-qbox_r50_fpn_1x_dota.py",
    "redet/redet-le90_re50_refpn_1x_dota.py",
    "csl/rotated-retinanet-rbox-le90_r50_fpn_csl-gaussian_amp-1x_dota.py",
    "psc/rotated-retinanet-rbox-le90_r50_fpn_psc_rr-6x_hrsc.py",
    "gwd/rotated-retinanet-hbox-oc_r50_fpn_gwd_1x_dota.py",
    "kld/rotated-retinanet-hbox-oc_r50_fpn_kld_1x_dota.py",
    "kfiou/rotated-retinanet-hbox-oc_r50_fpn_kfiou_1x_dota.py",
    "rotated_rtmdet/rotated_rtmdet_tiny-3x-dota.py",
    "rotated_fcos/rotated-fcos-le90_r50_fpn_1x_dota.py",
    "rotated_reppoints/rotated-reppoints-qbox_r50_fpn_1x_dota.py",
    "oriented_reppoints/oriented-reppoints-qbox_r50_fpn_1x_dota.py",
    "cfa/cfa-qbox_r50_fpn_1x_dota.py",
    "sasm_reppoints/sasm-reppoints-qbox_r50_fpn_1x_dota.py",
)


class DifferenceError(Exception):
    """Losses that differ, or assigners that aren't those that are meant."""


def small_model(cfg: Config, ours: bool) -> Any:
    """The model of a config with ResNet-18, random weights and losses for a CPU; with ``ours``, stand-ins, too."""
    model = copy.deepcopy(cfg.model)
    for _, node in typed_nodes(model, "model"):
        if "Pretrained" in str(node.get("init_cfg")):
            node["init_cfg"] = None
        if node["type"] in ("SyncBN", "mmdet.SyncBN"):
            node["type"] = "BN"
        if scope_and_name(node["type"])[1] == "RotatedIoULoss":
            node.clear()
            node.update(LOSS)
        if ours and node["type"] in STAND_INS:
            node["type"] = STAND_INS[node["type"]]
    if scope_and_name(model.backbone.type)[1] == "ResNet":
        model.backbone.depth = 18
        for neck in model.neck if isinstance(model.neck, list) else [model.neck]:
            if neck.in_channels == [256, 512, 1024, 2048]:
                neck.in_channels = [64, 128, 256, 512]
    return model


def box_kind(cfg: Config) -> str:
    """The box type that the training pipeline makes of the annotations; DOTA's are quadrilaterals."""
    nodes = typed_nodes(cfg.get("train_pipeline") or [], "train_pipeline")
    kinds = [node["box_type_mapping"]["gt_bboxes"] for _, node in nodes if "box_type_mapping" in node]
    return kinds[-1] if kinds else "qbox"


def batch(kind: str, in_class: bool) -> tuple[torch.Tensor, list[DetDataSample]]:
    """Two images of noise with boxes of a type, in their class or as rows."""
    samples = []
    for seed, boxes in enumerate(BOXES):
        sample = DetDataSample()
        objects = turned(torch.tensor(boxes), kind, seed)
        objects = objects if in_class else objects.tensor
        sample.gt_instances = InstanceData(bboxes=objects, labels=torch.arange(len(boxes)) % 1)
        sample.ignored_instances = InstanceData(bboxes=objects[:0], labels=torch.zeros(0, dtype=torch.long))
        shape = (SIDE, SIDE)
        sample.set_metainfo(dict(img_shape=shape, pad_shape=shape, batch_input_shape=shape, scale_factor=(1.0, 1.0)))
        samples.append(sample)
    return torch.randn(len(BOXES), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)), samples


def seed_everything() -> None:
    """The same random numbers each time."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def training_step(cfg: Config, ours: bool) -> tuple[dict[str, torch.Tensor], set[type]]:
    """Build a detector and give it a batch.

    Returns:
        Every loss, and the gradient of the first weight that has one; the classes of the assigners that were called.
    """
    dropin.enable() if ours else dropin.restore()
    try:
        seed_everything()
        model = MODELS.build(small_model(cfg, ours))
        model.init_weights()
    finally:
        dropin.restore()
    model.train()
    images, samples = batch(box_kind(cfg), not cfg.model.data_preprocessor.get("boxtype2tensor", True))
    seed_everything()
    called: set[type] = set()
    for _, _, assigner in find_assigners(model):
        _note_calls(assigner, called)
    losses = {}
    for name, value in model.loss(images, samples).items():
        parts = value if isinstance(value, (list, tuple)) else [value]
        losses.update({f"{name}[{number}]": part for number, part in enumerate(parts)})
    sum(value.sum() for name, value in losses.items() if "loss" in name).backward()
    weights = [(name, weight.grad) for name, weight in model.named_parameters() if weight.grad is not None]
    losses[f"gradient of {weights[0][0]}"] = weights[0][1]
    return losses, called


def _note_calls(assigner: Any, called: set[type]) -> None:
    original = assigner.assign

    def assign(*args: Any, **kwargs: Any) -> Any:
        called.add(type(assigner))
        return original(*args, **kwargs)

    assigner.assign = assign


def compare(cfg: Config) -> str:
    """Step a detector both ways.

    Returns:
        What was compared, in words; empty where no assigner of mmdet's, nor one with a stand-in, was called.

    Raises:
        DifferenceError: a loss differs, or an assigner isn't whose it should be.
    """
    expected, theirs = training_step(cfg, ours=False)
    losses, called = training_step(cfg, ours=True)
    if any(is_ours(kind) for kind in theirs):
        raise DifferenceError("ours were called where mmdet's should have been")
    left = {kind.__name__ for kind in called if not is_ours(kind)}
    replaced = {kind.__name__ for kind in theirs} & {*dropin.REGISTERED, *STAND_INS}
    if left & replaced:
        raise DifferenceError(f"{' and '.join(sorted(left & replaced))} of mmdet's was called")
    if expected.keys() != losses.keys():
        raise DifferenceError(f"the losses are {sorted(losses)}, with mmdet's assigners {sorted(expected)}")
    for name, value in expected.items():
        if not torch.allclose(value, losses[name], rtol=0, atol=0, equal_nan=True):
            raise DifferenceError(f"{name} is {value.sum().item()} with mmdet's, {losses[name].sum().item()} with ours")
    if not replaced:
        return ""
    return f"{', '.join(sorted(replaced))}: {len(losses) - 1} losses and a gradient"


def outcome(cfg: Config) -> tuple[str, str]:
    """One row of the table: equal, different, "not stepped" or "none of ours", and a word."""
    with DefaultScope.overwrite_default_scope(PACKAGE):
        try:
            word = compare(cfg)
        except DifferenceError as error:
            return "different", str(error)
        except Exception as error:  # whatever stops it is the reason to tell
            return "not stepped", f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    return ("equal", word) if word else ("none of ours", "it assigns by assigners of its own, or in its code")


def rows(names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Config, outcome and a word, one after another.

    Raises:
        UserError: mmrotate isn't there, or has no such config.
    """
    folder = configs_of(load_package(PACKAGE))
    known = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.py")) if "_base_" not in path.parts]
    for name in names:
        if not any(fnmatch(each, name) for each in known):
            raise UserError(f"{PACKAGE} has no config {name}; give FAMILY/CONFIG.py or a pattern")
    for config in known:
        if any(fnmatch(config, name) for name in names):
            try:
                cfg = Config.fromfile(folder / config, import_custom_modules=False)
            except Exception as error:
                yield config, "not resolved", f"{type(error).__name__}"
                continue
            yield config, *outcome(cfg)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 where losses differ."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "configs", nargs="*", default=ONE_OF_EACH, help="names or patterns; default: one of each detector"
    )
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    torch.set_num_threads(1)
    different = False
    with user_errors():
        print("| config | outcome | a word |\n|---|---|---|", flush=True)
        for config, what, word in rows(args.configs):
            different |= what == "different"
            print(f"| `{config}` | {what} | {word} |", flush=True)
    return int(different)


if __name__ == "__main__":
    sys.exit(main())
