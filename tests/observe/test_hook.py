"""The hook writes right numbers and pictures while a detector trains, and leaves it as it was."""

import json
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
from mmcv import imread
from mmdet.structures import TrackDataSample
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.structures import InstanceData
from torch import nn

from detectors import batch
from toolbox import ROOT, load_tool
from visdet_assigners import MaxIoUAssigner
from visdet_assigners.commands.config import set_data_root
from visdet_assigners.observe import record_assignments
from visdet_assigners.observe.draw import draw_assignments
from visdet_assigners.observe.hook import AssignmentHook, MatchHistory
from visdet_assigners.observe.statistics import ObjectTable
from visdet_assigners.observe.tap import find_assigners
from visdet_assigners.training.running import build_runner

CONFIGS = {
    "atss": "atss/atss_r18_fpn_12e_shapes.py",
    "deformable_detr": "deformable_detr/deformable-detr-refine_r18_50e_shapes.py",
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    load_tool("make_shapes").main([str(folder), "--train", "4", "--val", "4", "--size", "160", "120"])
    return str(folder)


class Recorder(Hook):
    """Records every assignment of the training, for comparison."""

    def before_train(self, runner):
        self.tap = record_assignments(runner.model)
        self.records = self.tap.__enter__()

    def after_train(self, runner):
        self.tap.__exit__(None, None, None)


def train(config, shapes, folder, epochs, others=(), **hook):
    cfg = Config.fromfile(ROOT / "configs" / CONFIGS[config])
    set_data_root(cfg, shapes)
    cfg.work_dir = str(folder)
    cfg.launcher = "none"
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False, batch_size=2)
    cfg.train_dataloader.dataset.pipeline = [
        step for step in cfg.train_dataloader.dataset.pipeline if step["type"] != "RandomFlip"
    ]
    cfg.train_cfg.max_epochs = epochs
    cfg.train_cfg.val_interval = epochs + 1
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    cfg.default_hooks.checkpoint = None
    cfg.custom_hooks = [dict(type="visdet_assigners.AssignmentHook", **hook)]
    cfg.randomness = dict(seed=0)
    cfg.log_level = "WARNING"
    cfg.visualizer = dict(type="Visualizer", name=folder.name, vis_backends=[dict(type="LocalVisBackend")])
    runner = build_runner(cfg)
    recorder = Recorder()
    runner.register_hook(recorder, "LOWEST")
    for other in others:
        runner.register_hook(other)
    runner.train()
    scalars = {}
    for file in Path(folder).rglob("vis_data/*.json"):
        if file.name != "config.py":
            for line in file.read_text().splitlines():
                row = json.loads(line)
                for key, value in row.items():
                    if key.startswith("assignments/"):
                        scalars.setdefault(key, {})[row["step"]] = value
    return runner, recorder.records, scalars


def test_scalars_and_pictures(shapes, tmp_path):
    runner, records, scalars = train("atss", shapes, tmp_path, 2, interval=2, every=1, picture_interval=3)
    assert not any("assign" in vars(assigner) for _, _, assigner in find_assigners(runner.model))
    assert "loss" not in vars(runner.model)
    assert sorted(scalars) == [
        f"assignments/bbox_head.assigner/{name}" for name in ("positives_per_object", "quality", "without_positive")
    ]
    # 4 images in batches of 2: each writing tells of two iterations, of 4 records
    for step, expected in ((2, records[:4]), (4, records[4:])):
        table = ObjectTable.of(expected, range(4))
        got = {key.split("/")[-1]: values[step] for key, values in scalars.items()}
        assert got["positives_per_object"] == pytest.approx(table.positives.mean())
        assert got["without_positive"] == pytest.approx((table.positives == 0).mean())
        assert got["quality"] == pytest.approx(np.nanmean(table.quality))
    (picture,) = tmp_path.rglob("vis_image/*.png")
    assert picture.name == "assignments.bbox_head.assigner_3.png"
    assert imread(picture).std() > 10


class Spoiler(Hook):
    """Lets the model see one object of an image that is no box, from the second iteration on."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter > 0:
            data_batch["data_samples"][0].gt_instances.bboxes.tensor[0, 2] = float("nan")


def test_what_was_taken_out_is_written(shapes, tmp_path, monkeypatch, caplog):
    """One object in each of three iterations; of four, the first is clean."""
    monkeypatch.setenv("VISDET_ASSIGNERS_ON_NONFINITE", "replace")
    _, _, scalars = train("atss", shapes, tmp_path, 2, interval=1, every=1, others=[Spoiler()])
    key = "assignments/replaced/ATSSAssigner/gt_instances.bboxes"
    assert scalars[key] == {2: 1, 3: 1, 4: 1}


def test_only_some_iterations_are_measured(shapes, tmp_path):
    _, records, scalars = train("atss", shapes, tmp_path, 2, interval=4, every=4)
    table = ObjectTable.of(records[:2], range(2))
    values = scalars["assignments/bbox_head.assigner/positives_per_object"]
    assert values == {2: pytest.approx(table.positives.mean())}  # written at the end of the epoch


def test_instability_of_matching(shapes, tmp_path):
    _, records, scalars = train("deformable_detr", shapes, tmp_path, 3, interval=100, every=100)
    layers = sorted({record.repeat for record in records})
    names = [f"assignments/bbox_head.assigner/changed_queries/layer_{layer}" for layer in layers]
    assert [name for name in sorted(scalars) if "changed" in name] == names
    for layer, name in zip(layers, names):
        matchings = {}
        for record in records:
            if record.repeat == layer:
                query = {int(index): query for query, index in enumerate(record.gt_index) if index >= 0}
                matchings.setdefault(record.image.img_path, []).append([query[index] for index in range(len(query))])
        for epoch in (1, 2):
            changes = [a != b for seen in matchings.values() for a, b in zip(seen[epoch - 1], seen[epoch])]
            assert scalars[name][2 * (epoch + 1)] == pytest.approx(np.mean(changes))
        assert sorted(scalars[name]) == [4, 6]  # nothing to compare with in the first epoch


def test_of_a_video_the_key_frame_is_drawn():
    images, samples = batch([[[8.0, 8.0, 60.0, 50.0]], [[10.0, 8.0, 62.0, 50.0]]])
    whole = TrackDataSample()
    whole.video_data_samples = samples
    whole.set_metainfo({"key_frames_inds": [1], "ref_frames_inds": [0]})

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.assigner = MaxIoUAssigner(0.5, 0.5)

        def loss(self, inputs, data_samples):
            for frame in data_samples[0].video_data_samples:
                self.assigner.assign(InstanceData(priors=frame.gt_instances.bboxes), frame.gt_instances)

    drawn = {}
    dataset = SimpleNamespace(metainfo={"classes": ["cat"]})
    runner = SimpleNamespace(
        iter=0,
        train_dataloader=SimpleNamespace(dataset=dataset),
        visualizer=SimpleNamespace(add_image=lambda name, image, step: drawn.update({name: image})),
    )
    hook = AssignmentHook(picture_interval=1)
    head = Head()
    with record_assignments(head) as records:
        head.loss(images[None], [whole])
    assert [record.image.index for record in records] == [0, 1]
    hook.records = records
    with patch("visdet_assigners.observe.hook.draw_assignments", wraps=draw_assignments) as draw:
        hook._draw(runner, {"inputs": images[None], "data_samples": [whole]})
    assert list(drawn) == ["assignments.assigner"]
    (image, shown, names), _ = draw.call_args
    assert image.shape == (*samples[1].img_shape, 3)
    assert [record.gt_boxes.tolist() for record in shown] == [[[10.0, 8.0, 62.0, 50.0]]]
    assert names == ["cat"]


def test_views_of_an_image_are_kept_apart():
    history = MatchHistory()
    left, right = np.float32([[0.1, 0.1, 0.2, 0.2]]), np.float32([[0.8, 0.1, 0.9, 0.2]])
    assert history.update("a", left, np.int32([[5], [5]])) is None
    assert history.update("a", right, np.int32([[7], [7]])) is None
    assert history.update("b", left, np.int32([[1], [1]])) is None
    assert history.update("a", left + 0.001, np.int32([[5], [6]])).tolist() == [[False], [True]]
    assert history.update("a", left, np.int32([[5], [6]])).tolist() == [[False], [False]]
    assert history.update("a", right, np.int32([[8], [7]])).tolist() == [[True], [False]]


def test_wrong_intervals_are_refused():
    for wrong in (dict(interval=0), dict(every=0), dict(picture_interval=-1)):
        with pytest.raises(ValueError, match="at least 1"):
            AssignmentHook(**wrong)
