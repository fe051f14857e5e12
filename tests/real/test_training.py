"""Trainings begin, learn and validate on real data sets, read from their files as these are.

Drawn data have no decimal areas, no boxes without area and no strange polygons: trainings on them can work while none
on real data starts.  Each data set sees several families, and each family at least one data set.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import pytest

from real.data_sets import DATA_SETS
from real.trainings import TINY_COCO, run, write_config
from scenes import needs
from visdet_assigners.training.running import load_checkpoint


@dataclass(frozen=True)
class Trial:
    """A training on a data set.

    Attributes:
        data: the set.
        bases: of the config, in ``configs/``.
        assigners: that are to be called, in the order of their names.
        loss: about what an untrained network has, as it was measured once.
        epochs: over the images.
        as_process: through ``tools/train.py`` itself.
        again: whether other trials show the family and the data set.
    """

    data: str
    bases: tuple[str, ...]
    assigners: str
    loss: float
    epochs: int = 1
    as_process: bool = False
    again: bool = False

    @property
    def name(self) -> str:
        return f"{self.data}-{self.bases[0].split('/')[-1].removesuffix('.py')}"


TRIALS = [
    Trial("bccd", ("yolox/yolox_nano_24e_bccd.py",), "SimOTA", 10.7, as_process=True),
    Trial("bccd", ("faster_rcnn/faster-rcnn_r18_fpn_12e_bccd.py",), "MaxIoU", 2.6),
    Trial("bccd", ("atss/atss_r18_fpn_12e_bccd.py",), "ATSS", 3.4),
    Trial("bccd", ("tood/tood_r18_fpn_24e_bccd.py",), "ATSS TaskAligned", 2.5, epochs=2),
    Trial("bccd", ("deformable_detr/deformable-detr-refine_r18_50e_bccd.py",), "Hungarian", 13.4),
    Trial("bccd", ("co_detr/co-deformable-detr-atss-rcnn_r18_12e_bccd.py",), "ATSS Hungarian MaxIoU", 78),
    Trial("nuclei", ("atss/atss_r18_fpn_12e_nuclei.py",), "ATSS", 3.3, as_process=True),
    Trial("nuclei", ("atss/fcos-lite_r18_fpn_12e_nuclei.py",), "ScaleRange", 2.8),
    Trial("nuclei", ("faster_rcnn/faster-rcnn_r18_fpn_12e_nuclei.py",), "MaxIoU", 1.6, again=True),
    Trial("nuclei", ("static_retinanet/static-retinanet_r18_fpn_12e_nuclei.py",), "AscendMaxIoU", 2.4),
    Trial("nuclei", ("tood/tood_r18_fpn_24e_nuclei.py",), "ATSS TaskAligned", 2.4, epochs=2, again=True),
    Trial("nuclei", ("yolox/yolox_nano_24e_nuclei.py",), "SimOTA", 10.6),
    Trial("nuclei", ("rtmdet/rtmdet_nano_12e_nuclei.py",), "DynamicSoftLabel", 2.1),
    Trial("nuclei", ("deformable_detr/deformable-detr-refine_r18_50e_nuclei.py",), "Hungarian", 16.1),
    Trial("tiny_coco", ("mask2former/mask2former_r18_24e_tiny-coco.py",), "MaskHungarian", 68.5, as_process=True),
    Trial("tiny_coco", ("_base_/models/atss_r18_fpn.py", *TINY_COCO), "ATSS", 3.1),
    Trial("tiny_coco", ("_base_/models/yolox_nano.py", *TINY_COCO), "SimOTA", 11.5),
    Trial("tiny_coco", ("_base_/models/tood_r18_fpn.py", *TINY_COCO), "ATSS TaskAligned", 2.6, epochs=2, again=True),
    Trial("tiny_coco", ("_base_/models/dino_r18.py", *TINY_COCO), "Hungarian", 29.6),
]


def as_parameter(trial):
    marks = [needs(trial.data), *([pytest.mark.slow(reason="other trials show it, too")] if trial.again else [])]
    return pytest.param(trial, id=trial.name, marks=marks)


@pytest.mark.parametrize("trial", map(as_parameter, TRIALS))
def test_a_training(trial, tmp_path, monkeypatch):
    data = DATA_SETS[trial.data]
    config = write_config(tmp_path / f"{re.sub(r'[^a-z0-9]', '_', trial.name)}.py", trial.bases)
    left = run(data, config, tmp_path / "work", monkeypatch, epochs=trial.epochs, as_process=trial.as_process)

    # Each image of each epoch was learned from, and every assigner was given the objects that the files have.
    steps = trial.epochs * len(left.images) // 2
    assert [row["step"] for row in left.losses] == list(range(1, steps + 1))
    objects = {image: len(data.train.objects(image)) for image in left.images}
    assert sum(objects.values()) > 0
    assert {call["image"] for call in left.calls} >= {image for image in objects if objects[image]}
    for call in left.calls:
        assert call["objects"] == objects[call["image"]], call
    assert sorted({call["assigner"].removesuffix("Assigner") for call in left.calls}) == trial.assigners.split()
    for where in {call["where"] for call in left.calls}:
        mine = [call for call in left.calls if call["where"] == where]
        assert sum(call["positives"] for call in mine) > 0, where
        if "Hungarian" in mine[0]["assigner"]:
            assert all(call["positives"] == call["with_one"] == call["objects"] for call in mine)

    # The losses are numbers of the size that they have before anything is learned.
    for row in left.losses:
        assert all(math.isfinite(row[key]) for key in row if "loss" in key), row
        assert trial.loss / 2 < row["loss"] < trial.loss * 2

    # The validation ran after the last epoch, and the checkpoint is whole.
    (metrics,) = left.metrics
    assert 0 <= metrics["coco/bbox_mAP"] <= 1
    checkpoint = load_checkpoint(str(left.folder / f"epoch_{trial.epochs}.pth"))
    assert checkpoint["meta"]["iter"] == steps
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
