"""Small scenes for fuzzing, one hypothesis strategy for each assigner: configuration, predictions, objects."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from visdet_assigners.testing.drawing import (
    IMAGES,
    NUM_CLASSES,
    Draw,
    from_afar,
    ground_truths,
    logits,
    predicted,
    priors,
    regions,
)
from visdet_assigners.testing.scenes import generator
from visdet_assigners.testing.small_trials import hierarchical, poto, ranking, scheduled
from visdet_assigners.testing.trial import Trial, pointwise

THRESHOLDS = st.sampled_from([0.5, 0.5, 0.7, 0.3, 0.1, 0.0])


def thresholds(draw: Draw) -> dict[str, Any]:
    """Options that MaxIoU and its relatives share."""
    config = {
        "pos_iou_thr": draw(THRESHOLDS),
        "neg_iou_thr": draw(st.sampled_from([0.5, 0.4, 0.3, 0.1, (0.1, 0.4), (0.0, 0.5)])),
        "min_pos_iou": draw(st.sampled_from([0.0, 0.0, 0.2, 0.5])),
        "gt_max_assign_all": draw(st.booleans()),
    }
    return {key: value for key, value in config.items() if key[-3:] == "thr" or draw(st.booleans())}


def max_iou_config(draw: Draw) -> dict[str, Any]:
    """Options of MaxIoU."""
    config = thresholds(draw)
    config["match_low_quality"] = draw(st.sampled_from([True, True, False]))
    if draw(st.booleans()):
        config["ignore_iof_thr"] = draw(st.sampled_from([0.5, 0.1]))
        config["ignore_wrt_candidates"] = draw(st.booleans())
    return config


@st.composite
def max_iou(draw: Draw) -> Trial:
    """MaxIoU on anchors or proposals."""
    image, config = draw(IMAGES), max_iou_config(draw)
    if draw(st.integers(0, 9)) == 0:
        config["perm_repeat_gt_cfg"] = {"iou_thr": 0.7, "perm_range": 0.01}
    if draw(st.integers(0, 9)) == 0:
        config["gpu_assign_thr"] = 2
    gt, own = draw(ground_truths(image)), draw(priors(image, 2)).boxes
    if draw(st.booleans()):
        own = draw(predicted(own, gt["bboxes"]))
    return Trial("MaxIoUAssigner", config, {"priors": own}, gt, draw(regions(image)), image)


@st.composite
def approx_max_iou(draw: Draw) -> Trial:
    """ApproxMaxIoU on squares with one to three approximating boxes."""
    image = draw(IMAGES)
    squares = draw(priors(image, 2, ratios=False)).boxes
    half = (squares[:, 2:] - squares[:, :2]).repeat(1, 2) / 2 * torch.tensor([-1, -1, 1, 1])
    factors = draw(st.sampled_from([(1.0,), (1.0, 1.26), (0.8, 1.0, 1.59)]))
    approxs = torch.stack([squares + half * (factor - 1) for factor in factors], dim=1)
    pred = {"priors": squares, "approxs": approxs}
    return Trial(
        "ApproxMaxIoUAssigner", max_iou_config(draw), pred, draw(ground_truths(image)), draw(regions(image)), image
    )


@st.composite
def ascend_max_iou(draw: Draw) -> Trial:
    """AscendMaxIoU on one image, a list of images, or padded tensors."""
    config, form = max_iou_config(draw), draw(st.sampled_from(["one", "list", "padded"]))
    images = []
    for _ in range(1 if form == "one" else draw(st.integers(1, 3))):
        image = draw(IMAGES)
        made = draw(priors(image, 2)).boxes
        images.append(
            Trial("MaxIoUAssigner", config, {"priors": made}, draw(ground_truths(image, 4)), draw(regions(image)))
        )
    first = images[0]
    return Trial(
        "AscendMaxIoUAssigner", config, first.pred, first.gt, first.ignore, rest={"form": form, "images": images}
    )


@st.composite
def atss(draw: Draw) -> Trial:
    """ATSS, plain or DDOD's."""
    image, topk = draw(IMAGES), draw(st.sampled_from([9, 9, 1, 3, 200]))
    config: dict[str, Any] = {"topk": topk}
    made, gt = draw(priors(image, topk)), draw(ground_truths(image))
    pred, ignore = {"priors": made.boxes}, None
    kind = draw(st.sampled_from(["plain", "plain", "ignore", "ddod", "glip"]))
    if kind == "ddod":
        config["alpha"] = draw(st.sampled_from([0.8, 0.5]))
        pred["bboxes"] = draw(predicted(made.boxes, gt["bboxes"]))
        pred["scores"] = draw(logits(len(made.boxes)))
    elif kind == "glip":
        config["iou_calculator"] = {"type": "BboxOverlaps2D_GLIP"}
    elif kind == "ignore":
        config["ignore_iof_thr"] = draw(st.sampled_from([0.5, 0.1]))
        ignore = draw(regions(image))
    return Trial("ATSSAssigner", config, pred, gt, ignore, image, {"levels": made.sizes})


@st.composite
def task_aligned(draw: Draw) -> Trial:
    """TaskAligned."""
    image, topk = draw(IMAGES), draw(st.sampled_from([13, 13, 1, 4]))
    made, gt = draw(priors(image, topk)), draw(ground_truths(image))
    pred = {
        "priors": made.boxes,
        "bboxes": draw(predicted(made.boxes, gt["bboxes"])),
        "scores": draw(logits(len(made.boxes))).sigmoid(),
    }
    exponents = draw(st.sampled_from([(1, 6), (1, 6), (0.5, 2.0), (0, 1)]))
    return Trial("TaskAlignedAssigner", {"topk": topk}, pred, gt, None, image, {"exponents": exponents})


@st.composite
def sim_ota(draw: Draw) -> Trial:
    """SimOTA."""
    image = draw(IMAGES)
    config = {
        "center_radius": draw(st.sampled_from([2.5, 1.0, 0.4])),
        "candidate_topk": draw(st.sampled_from([10, 3, 1])),
    }
    if draw(st.booleans()):
        config |= {"iou_weight": 1.5, "cls_weight": 0.5}
    gt = draw(ground_truths(image))
    pred = pointwise(draw, image, int(config["candidate_topk"]), gt)
    pred["scores"] = pred["scores"].sigmoid()
    return Trial("SimOTAAssigner", config, pred, gt, None, image)


@st.composite
def dynamic_soft_label(draw: Draw) -> Trial:
    """DynamicSoftLabel, sometimes with masks."""
    image = draw(IMAGES)
    config = {"topk": draw(st.sampled_from([13, 3, 1])), "soft_center_radius": draw(st.sampled_from([3.0, 1.5]))}
    if draw(st.booleans()):
        config["iou_weight"] = 1.5
    gt = draw(ground_truths(image))
    pred = pointwise(draw, image, int(config["topk"]), gt)
    if draw(st.integers(0, 4)) == 0:
        g = generator(draw(st.integers(0, 999)))
        gt["masks"] = torch.rand(len(gt["bboxes"]), *image, generator=g) < 0.3
        gt["masks"][:, 0, 0] = True  # the centre of an empty mask is nowhere
    return Trial("DynamicSoftLabelAssigner", config, pred, gt, None, image)


@st.composite
def scale_range(draw: Draw) -> Trial:
    """ScaleRange, with and without centre sampling."""
    image = draw(IMAGES)
    made = draw(priors(image, 1))
    ends = [0.0, *(draw(st.sampled_from([8.0, 12.0, 16.0])) * 2**level for level in range(len(made.sizes) - 1))]
    config: dict[str, Any] = {"regress_ranges": list(zip(ends, [*ends[1:], float("inf")]))}
    if draw(st.booleans()):
        radius = draw(st.sampled_from([1.5, 0.6]))
        config |= {"center_sampling": True, "center_sample_radius": radius, "strides": made.strides}
    gt = draw(ground_truths(image))
    return Trial("ScaleRangeAssigner", config, {"priors": made.boxes}, gt, None, image, {"levels": made.sizes})


@st.composite
def grid(draw: Draw) -> Trial:
    """Grid with some responsible anchors, none or all."""
    image, config = draw(IMAGES), thresholds(draw)
    own = draw(priors(image, 2)).boxes
    share = draw(st.sampled_from([0.5, 0.1, 0.0, 1.1]))
    flags = torch.rand(len(own), generator=generator(draw(st.integers(0, 999)))) < share
    pred = {"priors": own, "responsible_flags": flags.to(draw(st.sampled_from([torch.bool, torch.uint8])))}
    return Trial("GridAssigner", config, pred, draw(ground_truths(image)), None, image)


@st.composite
def uniform(draw: Draw) -> Trial:
    """Uniform."""
    image, times = draw(IMAGES), draw(st.sampled_from([4, 4, 1, 8]))
    config = {"pos_ignore_thr": draw(st.sampled_from([0.15, 0.5])), "neg_ignore_thr": draw(st.sampled_from([0.7, 0.3]))}
    own, gt = draw(priors(image, times)).boxes, draw(ground_truths(image))
    fields = from_afar(draw, own, draw(predicted(own, gt["bboxes"])), gt["bboxes"])
    pred, gt["bboxes"] = dict(zip(("priors", "decoder_priors"), fields)), fields[2]
    return Trial("UniformAssigner", {**config, "match_times": times}, pred, gt, None, image)


@st.composite
def region(draw: Draw) -> Trial:
    """Region on square anchors."""
    image = draw(IMAGES)
    config = draw(st.sampled_from([{}, {"center_ratio": 0.6, "ignore_ratio": 0.7}, {"center_ratio": 0.5}]))
    made = draw(priors(image, 1, ratios=False, cut=False))
    valid = torch.rand(len(made.boxes), generator=generator(draw(st.integers(0, 999)))) < draw(
        st.sampled_from([0.8, 2.0])
    )
    rest = {"priors": made, "border": draw(st.sampled_from([0, -1, 16]))}
    pred = {"priors": made.boxes, "valid_flags": valid}
    return Trial("RegionAssigner", config, pred, draw(ground_truths(image)), None, image, rest)


@st.composite
def center_region(draw: Draw) -> Trial:
    """CenterRegion."""
    image = draw(IMAGES)
    config: dict[str, Any] = dict(
        zip(("pos_scale", "neg_scale"), draw(st.sampled_from([(0.2, 0.2), (0.3, 0.6), (0.5, 1.0)])))
    )
    if draw(st.booleans()):
        config |= {"foreground_dominate": draw(st.booleans()), "min_pos_iof": draw(st.sampled_from([0.01, 0.3, 0.0]))}
    pred = {"priors": draw(priors(image, 1)).boxes}
    return Trial("CenterRegionAssigner", config, pred, draw(ground_truths(image)), draw(regions(image)), image)


@st.composite
def point(draw: Draw) -> Trial:
    """Point."""
    image, count = draw(IMAGES), draw(st.sampled_from([3, 1, 1, 9]))
    points = draw(priors(image, count, ratios=False)).points
    config = {"scale": draw(st.sampled_from([4, 1])), "pos_num": count}
    return Trial("PointAssigner", config, {"priors": points[:, :3]}, draw(ground_truths(image)), None, image)


@st.composite
def multi_instance(draw: Draw) -> Trial:
    """MultiInstance on proposals."""
    image = draw(IMAGES)
    config = {"num_instance": draw(st.sampled_from([2, 2, 3, 1]))}
    config |= {"pos_iou_thr": draw(THRESHOLDS), "neg_iou_thr": draw(THRESHOLDS)}
    gt, ignore = draw(ground_truths(image)), draw(regions(image))
    if ignore is not None and draw(st.booleans()):
        ignore["labels"] = torch.full((len(ignore["bboxes"]),), -1)
    own = draw(predicted(draw(priors(image, 2)).boxes, gt["bboxes"]))
    return Trial("MultiInstanceAssigner", config, {"priors": own}, gt, ignore, image)


COSTS = [
    {"type": "ClassificationCost", "weight": 1.0},
    {"type": "FocalLossCost", "weight": 2.0},
    {"type": "FocalLossCost", "alpha": 0.4, "gamma": 1.5, "eps": 1e-8},
    {"type": "BBoxL1Cost", "weight": 5.0},
    {"type": "BBoxL1Cost", "weight": 5.0, "box_format": "xywh"},
    {"type": "IoUCost", "iou_mode": "giou", "weight": 2.0},
    {"type": "IoUCost", "iou_mode": "iou"},
    {"type": "FocalLossCost", "weight": 20.0, "binary_input": True},
    {"type": "CrossEntropyLossCost", "weight": 5.0, "use_sigmoid": True},
    {"type": "DiceCost", "weight": 5.0, "pred_act": True, "eps": 1.0},
    {"type": "DiceCost", "naive_dice": False, "pred_act": True},
    {"type": "BinaryFocalLossCost", "weight": 2.0},
]


@st.composite
def queries(draw: Draw, image: tuple[int, int], topk: int, gt: dict[str, Tensor]) -> dict[str, Tensor]:
    """Boxes, logits and masks of queries, and masks and texts of the ground truths put into ``gt``."""
    own = draw(priors(image, topk)).boxes[:40]
    count, g = len(gt["bboxes"]), generator(draw(st.integers(0, 999)))
    masks = torch.randn(len(own), 3, 5, generator=g)
    if draw(st.booleans()):
        masks = masks.round()
    gt["masks"] = (torch.rand(count, 3, 5, generator=g) < 0.4).long()
    tokens = torch.tensor([True] * (NUM_CLASSES - 1) + [False] * draw(st.integers(0, 1)))  # a text may be shorter
    gt["text_token_mask"] = tokens.expand(count, -1)
    gt["positive_maps"] = (torch.rand(count, NUM_CLASSES, generator=g) < 0.5).float()
    scores = draw(logits(len(own)))
    if draw(st.integers(0, 3)) == 0:  # a class that a head masks, which no word of the texts is
        scores[:, -1] = -torch.inf
    return {"bboxes": draw(predicted(own, gt["bboxes"])), "scores": scores, "masks": masks}


@st.composite
def hungarian(draw: Draw) -> Trial:
    """Hungarian with any costs."""
    image = draw(IMAGES)
    gt = draw(ground_truths(image))
    pred = draw(queries(image, 4, gt))
    costs = draw(st.lists(st.sampled_from(COSTS), min_size=1, max_size=6))
    return Trial("HungarianAssigner", {"match_costs": costs}, pred, gt, None, image)


@st.composite
def mask_hungarian(draw: Draw) -> Trial:
    """MaskHungarian with or without classes, some costs of weight 0."""
    image = draw(IMAGES)
    gt = draw(ground_truths(image))
    pred = draw(queries(image, 4, gt))
    gt, pred = {name: gt[name] for name in ("labels", "masks")}, {name: pred[name] for name in ("scores", "masks")}
    config = {
        "cls_cost": draw(st.sampled_from([COSTS[0], COSTS[1], {"type": "ClassificationCost", "weight": 0.0}])),
        "mask_cost": draw(st.sampled_from([COSTS[7], COSTS[8], {"type": "CrossEntropyLossCost", "weight": 0.0}])),
        "dice_cost": draw(st.sampled_from([COSTS[9], COSTS[10]])),
    }
    if draw(st.integers(0, 3)) == 0:
        del pred["scores"]
    return Trial("MaskHungarianAssigner", config, pred, gt, None, image, {"tensors": draw(st.booleans())})


@st.composite
def topk_hungarian(draw: Draw) -> Trial:
    """TopkHungarian."""
    image, topk = draw(IMAGES), draw(st.sampled_from([4, 8, 1]))
    gt = draw(ground_truths(image))
    pred = draw(queries(image, topk, gt))
    gt = {name: gt[name] for name in ("bboxes", "labels")}
    pred = {"scores": pred["scores"].sigmoid(), "bboxes": pred["bboxes"]}
    return Trial("TopkHungarianAssigner", {"topk": topk}, pred, gt, None, image)


TRIALS: dict[str, st.SearchStrategy[Trial]] = {
    "MaxIoUAssigner": max_iou(),
    "ApproxMaxIoUAssigner": approx_max_iou(),
    "AscendMaxIoUAssigner": ascend_max_iou(),
    "ATSSAssigner": atss(),
    "TaskAlignedAssigner": task_aligned(),
    "SimOTAAssigner": sim_ota(),
    "DynamicSoftLabelAssigner": dynamic_soft_label(),
    "HungarianAssigner": hungarian(),
    "MaskHungarianAssigner": mask_hungarian(),
    "TopkHungarianAssigner": topk_hungarian(),
    "GridAssigner": grid(),
    "ScaleRangeAssigner": scale_range(),
    "UniformAssigner": uniform(),
    "RegionAssigner": region(),
    "CenterRegionAssigner": center_region(),
    "PointAssigner": point(),
    "MultiInstanceAssigner": multi_instance(),
    "RankingAssigner": ranking(),
    "HierarchicalAssigner": hierarchical(),
    "POTOAssigner": poto(),
    "ScheduledAssigner": scheduled(),
}
"""A strategy for each assigner."""
