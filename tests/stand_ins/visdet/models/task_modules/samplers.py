"""What its samplers read of a result."""

import torch


def sample(assign_result, priors, gt_instances, add_gt_as_proposals=False):
    if add_gt_as_proposals:
        priors = torch.cat([gt_instances.bboxes, priors])
        assign_result.add_gt_(gt_instances.labels)
    positive = torch.nonzero(assign_result.gt_inds > 0).squeeze(-1)
    negative = torch.nonzero(assign_result.gt_inds == 0).squeeze(-1)
    gt = assign_result.gt_inds[positive] - 1
    return positive, negative, priors[positive], gt_instances.bboxes[gt], assign_result.labels[positive]
