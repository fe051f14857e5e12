"""Small scenes for fuzzing the assigners that mmdet lacks, beside the loops of `plain`."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from visdet_assigners.testing.drawing import IMAGES, Draw, ground_truths, priors
from visdet_assigners.testing.trial import Trial, pointwise

MEASURES = st.sampled_from(
    [
        None,
        {"type": "NWDOverlaps", "constant": 12.8},
        {"type": "NWDOverlaps", "constant": 4.0, "floor": 0.3},
        {"type": "NWDOverlaps", "constant": 8.0, "union": True},
        {"type": "KLDOverlaps"},
        {"type": "KLDOverlaps", "floor": 0.4, "union": True},
        {"type": "SimDOverlaps", "m": 2.0, "n": 4.0},
    ]
)


@st.composite
def ranking(draw: Draw) -> Trial:
    """Ranking by any measure."""
    image, topk = draw(IMAGES), draw(st.sampled_from([1, 2, 2, 3, 9]))
    config: dict[str, Any] = {"topk": topk, "neg_iou_thr": draw(st.sampled_from([0.3, 0.5, (0.1, 0.3)]))}
    config |= draw(st.sampled_from([{}, {}, {"min_pos_iou": 0.2}]))
    measure = draw(MEASURES)
    config |= {} if measure is None else {"iou_calculator": measure}
    return Trial("RankingAssigner", config, {"priors": draw(priors(image, topk)).boxes}, draw(ground_truths(image)),
                 None, image)  # fmt: skip


@st.composite
def hierarchical(draw: Draw) -> Trial:
    """RFLA's two passes."""
    image, topk = draw(IMAGES), draw(st.sampled_from([3, 3, 1, 2]))
    config: dict[str, Any] = {"topk": topk, "more": draw(st.sampled_from([1, 1, 2]))}
    config |= draw(st.sampled_from([{}, {"ratio": 0.5}, {"neg_iou_thr": 0.5}, {"conflict": "best"}]))
    measure = draw(MEASURES)
    config |= {} if measure is None else {"iou_calculator": measure}
    return Trial("HierarchicalAssigner", config, {"priors": draw(priors(image, topk)).boxes},
                 draw(ground_truths(image)), None, image)  # fmt: skip


@st.composite
def poto(draw: Draw) -> Trial:
    """POTO by the best point of each object."""
    image = draw(IMAGES)
    config = {"center_radius": draw(st.sampled_from([1.5, 1.0, 2.5])), "alpha": draw(st.sampled_from([0.8, 0.5, 1.0]))}
    gt = draw(ground_truths(image))
    pred = pointwise(draw, image, 1, gt)
    pred["scores"] = pred["scores"].sigmoid()
    return Trial("POTOAssigner", {**config, "score_form": "probabilities"}, pred, gt, None, image)


@st.composite
def scheduled(draw: Draw) -> Trial:
    """ATSS in the first epochs, and MaxIoU, which never has its turn."""
    image = draw(IMAGES)
    made = draw(priors(image, 9))
    others = [{"type": "ATSSAssigner", "topk": 9}, {"type": "MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.4}]
    config = {"assigners": others, "milestones": [10**9]}
    rest = {"levels": made.sizes}
    return Trial("ScheduledAssigner", config, {"priors": made.boxes}, draw(ground_truths(image)), None, image, rest)
