"""How its heads call an assigner, and something like a loss of what they learn."""

from visdet.engine.structures import InstanceData
from visdet.models.task_modules.samplers import sample
from visdet.registry import TASK_UTILS


class Head:
    def __init__(self, assigner, add_gt_as_proposals=False):
        self.assigner = TASK_UTILS.build(assigner)
        self.add_gt_as_proposals = add_gt_as_proposals

    def loss(self, priors, level_sizes, gt_instances, gt_instances_ignore):
        result = self.assign(priors, level_sizes, gt_instances, gt_instances_ignore)
        found = sample(result, priors, gt_instances, self.add_gt_as_proposals)
        positive, negative, boxes, targets, labels = found
        assert ((labels >= 0) & (labels <= gt_instances.labels.max())).all()
        return float((boxes - targets).abs().sum() + labels.sum()), len(positive), len(negative)


class AnchorHead(Head):
    """Of RPN, RetinaNet, SSD and the RoI heads, and RTMDet's."""

    def assign(self, priors, level_sizes, gt_instances, gt_instances_ignore):
        return self.assigner.assign(InstanceData(priors=priors), gt_instances, gt_instances_ignore)


class ATSSHead(Head):
    """And GFL's: tensors as in mmdet 2, but ignore regions as instances."""

    def assign(self, priors, level_sizes, gt_instances, gt_instances_ignore):
        boxes, labels = gt_instances.bboxes, gt_instances.labels
        return self.assigner.assign(priors, level_sizes, boxes, gt_instances_ignore, labels)
