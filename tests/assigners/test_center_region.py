"""What CenterRegion promises of its own."""

import torch
from mmengine.structures import InstanceData

from visdet_assigners import (
    CenterRegionAssigner,
)


def test_the_smallest_core_wins_and_the_loser_is_shadowed():
    priors = torch.tensor([[4.0, 4.0, 6.0, 6.0], [90.0, 90.0, 92.0, 92.0]])
    gt = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 10.0, 10.0], [2.0, 2.0, 8.0, 8.0]]), labels=torch.tensor([6, 7]))
    result = CenterRegionAssigner(0.5, 0.5).assign(InstanceData(priors=priors), gt)
    assert result.gt_inds.tolist() == [2, 0]
    assert result.get_extra_property("shadowed_labels").tolist() == [[0, 6]]
    gt.labels = torch.tensor([7, 7])  # of one class: not sure enough to be positive
    assert CenterRegionAssigner(0.5, 0.5).assign(InstanceData(priors=priors), gt).gt_inds.tolist() == [0, 0]
    kept = CenterRegionAssigner(0.5, 0.5, foreground_dominate=True).assign(InstanceData(priors=priors), gt)
    assert kept.gt_inds.tolist() == [2, 0]
