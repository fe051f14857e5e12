"""What the multi-instance assigner promises of its own."""

import pytest
import torch
from mmengine.structures import InstanceData

from visdet_assigners import MultiInstanceAssigner

PRIORS = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0], [0.0, 0.0, 10.0, 9.0]])
ONE = InstanceData(bboxes=PRIORS[:1], labels=torch.tensor([0]))


def assigner(num_instance=2, **kwargs):
    return MultiInstanceAssigner(num_instance, pos_iou_thr=0.5, neg_iou_thr=0.5, **kwargs)


@pytest.mark.parametrize("num_instance", [1, 2, 3])
def test_fewer_boxes_than_instances(num_instance):
    """mmdet fails with one box, or mixes up the proposals."""
    result = assigner(num_instance).assign(InstanceData(priors=PRIORS), ONE)
    assert result.gt_inds.shape == result.labels.shape == result.max_overlaps.shape == (4, num_instance)
    assert result.labels[:, 0].tolist() == [1, 0, 1, 1]  # the box itself comes last
    assert (result.labels[:, 1:] == 0).all()
    assert (result.max_overlaps[:, 1:] == 0).all()


def test_no_box_at_all():
    gt = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    result = assigner().assign(InstanceData(priors=PRIORS), gt)
    assert result.labels.tolist() == [[0, 0]] * 3
    assert result.num_gts == 0


def test_ignore_boxes_without_labels_are_ignored_and_keep_whole_numbers():
    ignore = InstanceData(bboxes=PRIORS[1:2])
    result = assigner().assign(InstanceData(priors=PRIORS), ONE, ignore)
    assert result.labels.dtype == torch.long
    assert result.labels[1, 0] == -1
    assert result.gt_inds[1, 0] == 1
    assert result.num_gts == 2


def test_two_objects_in_one_place():
    crowd = InstanceData(bboxes=PRIORS[[0, 2]], labels=torch.tensor([0, 0]))
    result = assigner().assign(InstanceData(priors=PRIORS[:1]), crowd)
    assert result.labels[0].tolist() == [1, 1]
    assert result.gt_inds[0].tolist() == [0, 1]


def test_thresholds_may_be_a_pair():
    result = MultiInstanceAssigner(2, pos_iou_thr=0.5, neg_iou_thr=[0.0, 0.5]).assign(InstanceData(priors=PRIORS), ONE)
    assert result.labels[:, 0].tolist() == [1, 0, 1, 1]


def test_no_instances_are_refused():
    with pytest.raises(ValueError, match="num_instance is 0"):
        assigner(0)
