"""Its own three: two rules as plain loops, and a name."""

import torch

from visdet.registry import TASK_UTILS


class AssignResult:
    def __init__(self, num_gts, gt_inds, max_overlaps, labels):
        self.num_gts, self.gt_inds, self.max_overlaps, self.labels = num_gts, gt_inds, max_overlaps, labels

    def add_gt_(self, gt_labels):
        self.gt_inds = torch.cat([torch.arange(1, len(gt_labels) + 1), self.gt_inds])
        self.labels = torch.cat([gt_labels, self.labels])


@TASK_UTILS.register_module()
class BboxOverlaps2D:
    def __call__(self, boxes1, boxes2, mode="iou", is_aligned=False):
        low = torch.maximum(boxes1[:, None, :2], boxes2[None, :, :2])
        high = torch.minimum(boxes1[:, None, 2:], boxes2[None, :, 2:])
        inter = (high - low).clamp(min=0).prod(dim=2)
        area1, area2 = ((boxes[:, 2:] - boxes[:, :2]).prod(dim=1) for boxes in (boxes1, boxes2))
        return inter / (area1[:, None] + area2 - inter).clamp(min=1e-6)


def result_of(decided, gts, labels):
    gt_inds = torch.tensor(decided, dtype=torch.long)
    classes = torch.where(gt_inds > 0, labels[(gt_inds - 1).clamp(min=0)] if len(labels) else gt_inds, -1)
    return AssignResult(len(gts), gt_inds, None, classes)


@TASK_UTILS.register_module()
class MaxIoUAssigner:
    def __init__(self, pos_iou_thr, neg_iou_thr, min_pos_iou=0.0):
        self.pos_iou_thr, self.neg_iou_thr, self.min_pos_iou = pos_iou_thr, neg_iou_thr, min_pos_iou

    def assign(self, pred_instances, gt_instances, gt_instances_ignore=None):
        gts = gt_instances.bboxes
        iou = BboxOverlaps2D()(pred_instances.priors, gts)
        decided = []
        for row in iou.tolist():
            best = max(row, default=0)
            low = best < self.neg_iou_thr
            decided.append(row.index(best) + 1 if best >= self.pos_iou_thr else 0 if low else -1)
        for gt in range(len(gts)):
            best = float(iou[:, gt].max())
            for prior in range(len(iou)) if best >= self.min_pos_iou else ():
                decided[prior] = gt + 1 if float(iou[prior, gt]) == best else decided[prior]
        return result_of(decided, gts, gt_instances.labels)


@TASK_UTILS.register_module()
class ATSSAssigner:
    def __init__(self, topk):
        self.topk = topk

    def assign(self, bboxes, num_level_bboxes, gt_bboxes, gt_bboxes_ignore=None, gt_labels=None):
        iou = BboxOverlaps2D()(bboxes, gt_bboxes)
        center = (bboxes[:, :2] + bboxes[:, 2:]) / 2
        decided, found = [0] * len(bboxes), [0.0] * len(bboxes)
        for gt, box in enumerate(gt_bboxes):
            distance = (center - (box[:2] + box[2:]) / 2).pow(2).sum(dim=1).sqrt()
            first, candidates = 0, []
            for size in num_level_bboxes:
                near = distance[first : first + size].topk(min(self.topk, size), largest=False).indices + first
                candidates += near.tolist()
                first += size
            overlap = iou[candidates, gt]
            least = overlap.mean() + overlap.std()
            for prior in candidates:
                inside = min((center[prior] - box[:2]).min(), (box[2:] - center[prior]).min()) > 0.01
                if iou[prior, gt] >= least and inside and iou[prior, gt] > found[prior]:
                    decided[prior], found[prior] = gt + 1, float(iou[prior, gt])
        return result_of(decided, gt_bboxes, gt_labels)


@TASK_UTILS.register_module()
class DynamicSoftLabelAssigner:
    def __init__(self, topk=13):
        self.topk = topk
