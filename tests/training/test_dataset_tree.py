"""Data sets are found in wrappers of any kind, and repeated pictures are taken once."""

import pytest
from mmengine.config import ConfigDict

from visdet_assigners.training.dataset_tree import leaf_datasets, repeating_datasets, without_repeats

A, B = dict(type="CocoDataset", ann_file="a.json"), dict(type="mmdet.VOCDataset", data_root="voc/")


class Own:
    """A wrapper that is given as a class."""


WRAPPED = {
    "none": (A, [""]),
    "repeat": (dict(type="RepeatDataset", times=2, dataset=A), [".dataset"]),
    "concat": (dict(type="ConcatDataset", datasets=[A, B]), [".datasets.0", ".datasets.1"]),
    "balanced in mix": (
        dict(type="MultiImageMixDataset", dataset=dict(type="ClassBalancedDataset", oversample_thr=1e-3, dataset=A)),
        [".dataset.dataset"],
    ),
    "repeats in concat": (
        dict(type="ConcatDataset", datasets=[dict(type="RepeatDataset", times=2, dataset=A), B]),
        [".datasets.0.dataset", ".datasets.1"],
    ),
    "unknown keys": (
        dict(type=Own, labelled=A, others=[B, dict(type=Own, base=A)]),
        [".labelled", ".others.0", ".others.1.base"],
    ),
    "by name": (dict(type="Mixture", datasets=dict(coco=A, voc=B)), [".datasets.coco", ".datasets.voc"]),
    "by name under another key": (dict(type="Mixture", parts=dict(coco=A, voc=B)), [".parts.coco", ".parts.voc"]),
    "other things": (
        dict(
            A,
            pipeline=[dict(type="Mosaic", dataset=B)],
            backend_args=dict(type="x"),
            metainfo=dict(classes=["a"]),
            sampler=dict(type="RandomSampler"),
        ),
        [""],
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("form", [dict, ConfigDict])
def test_leaves(name, form):
    dataset, paths = WRAPPED[name]
    found = dict(leaf_datasets(form(dataset), "x"))
    assert [path.removeprefix("x") for path in found] == paths
    for one in found.values():
        assert "ann_file" in one or "data_root" in one


@pytest.mark.parametrize("dataset", [None, [], "a", object()])
def test_what_is_no_config(dataset):
    assert not list(leaf_datasets(dataset, "x"))
    assert without_repeats(dataset) is dataset or dataset == []


def test_each_picture_once():
    nested = ConfigDict(type="ConcatDataset", datasets=[
        dict(type="mmengine.RepeatDataset", times=3, dataset=dict(type="ClassBalancedDataset", dataset=A)), B
    ])  # fmt: skip
    assert [path for path, _ in repeating_datasets(nested, "x")] == ["x.datasets.0", "x.datasets.0.dataset"]
    assert without_repeats(nested) == dict(type="ConcatDataset", datasets=[A, B])
    assert nested.datasets[0].times == 3  # as it was
    assert not repeating_datasets(without_repeats(nested), "x")
