"""What works in which head, as a page: ``PYTHONPATH=tests python -m adapting.heads_page`` writes it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from adapting.adapted import BOXES, SETTINGS, STOCK, build_head, losses_of, samples, settings_for
from visdet_assigners.adapting.shadowing import shadow
from visdet_assigners.observe import watch

PAGE = Path(__file__).parents[2] / "configs" / "heads.md"
OWN, FED, INSIDE, NO = "**own**", "yes", "inside", "-"
# Assigners whose positives may have their centres outside of their objects.
ANYWHERE = (
    "MaxIoUAssigner", "AscendMaxIoUAssigner", "PointAssigner", "UniformAssigner", "SimOTAAssigner",
    "DynamicSoftLabelAssigner", "HungarianAssigner", "TopkHungarianAssigner",
)  # fmt: skip
SCORES = {"YOLOX": (0, 2)}
"""Which outputs of a head are scores, or say whether there is an object."""
TEXT = """# Which assigner works in which head?

With this page you can see whether an assigner works in a head of mmdet by its `type` alone, and whether the head's loss
leaves out what ignore regions cover.

Contents: [the table](#the-table) · [how a head is fed](#how-a-head-is-fed) · [ignore regions](#ignore-regions)

`PYTHONPATH=tests python -m adapting.heads_page` writes this page; `tests/adapting` fails where it says something else.
The heads are those of mmdet's configs, made narrow, in a training step on three images: one with objects, one that is
padded, one without objects.

```python
_base_ = "mmdet::rpn/rpn_r50_fpn_1x_coco.py"
model = dict(train_cfg=dict(rpn=dict(assigner=dict(_delete_=True, type="visdet_assigners.ATSSAssigner", topk=9))))
```

## The table

| cell | meaning |
| --- | --- |
| **own** | the head was written for it |
| yes | it works: what the head doesn't pass is filled in |
| inside | it works while the centres of its positives lie inside their objects: the head's centerness needs that |
| - | an error names the heads that can feed it |

{table}

* **ATSS**'s centerness: an error tells where a centre lies outside. MaxIoU's are inside with `ignore_outside_gt=True`.
* **FCOS** is `type="visdet_assigners.AssignedFCOSHead"`: mmdet's takes no assigner.
* **RepPoints** is its first stage, `train_cfg.init.assigner`.
* **Uniform** needs `anchors_only=True` in VFNet, YOLOv3, SABL and RepPoints, which predict no plain boxes before they
  assign.
* **ScaleRange** takes one range for each level of the head.
* RoI heads take MaxIoU, and CrowdDet's MultiInstance: proposals have no levels. DETR's line takes Hungarian, mask
  transformers Hungarian or MaskHungarian.

## How a head is fed

While a dense head of mmdet computes its losses, calls of an assigner of this package are completed by what it reads and
the head didn't pass. A call that is complete goes through as it is. For this, building an assigner wraps `loss` and
`loss_and_predict` of mmdet's `BaseDenseHead`.

* **Levels** are counted from the head's own feature maps, less what the head leaves out for an image. Where that can't
  be told exactly, an error says so; nothing is guessed.
* **Points** of anchors are their centres with their strides. **Boxes** of points are squares of 8 strides, as in the
  paper of ATSS.
* **Predictions** are those of the same step, decoded; a softmax becomes the probability of each class.
* **Targets**: RTMDet, YOLOX and TOOD train scores to the IoU of the predicted box. Where an assigner has another
  overlap, or none, that IoU takes its place. TOOD gets its alignment, and YOLOF its pairs.
* **Ignore regions** come from the data sample where the head keeps them to itself, as YOLOv3's does.

Heads that compute losses in ways of their own (LD, LAD, SoftTeacher, the stages of Cascade RPN) are not fed.

## Ignore regions

With `ignore_iof_thr=0.5`, any dense assigner ignores priors that would be background and are covered by more than half.
It is off by default. Four follow mmdet's rule instead: of MaxIoU, ApproxMaxIoU and AscendMaxIoU a covered prior matches
nothing either, and of ATSS it becomes a candidate last. CenterRegion ignores centres in regions without the option,
too; MultiInstance has a rule of its own. Whether an ignored prior has a weight in the loss of scores is the head's
matter:

| head | covered background is left out of the loss |
| --- | --- |
{regions}

Those that don't: YOLOX trains the objectness of every point, VFNet and FCOS the scores of every point, whatever the
assigner says. RepPoints trains scores in its second stage: there the option belongs to `train_cfg.refine.assigner`.
"""


def cell(assigner: str, head: str) -> tuple[str, str]:
    """What becomes of an assigner in a head, and the error where there is one."""
    model = build_head(head, settings_for(assigner, head))
    calls: list[Any] = []
    try:
        with watch(model, calls.append), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            total = sum(value for name, value in losses_of(model, head).items() if "loss" in name)
    except (TypeError, ValueError) as error:
        if "centerness" in str(error):
            return INSIDE, ""
        if "heads that can feed it" not in str(error):
            raise
        return NO, str(error)
    assert torch.isfinite(total).all()  # type: ignore[arg-type]
    assert sum(int((call.result.gt_inds > 0).sum()) for call in calls[:3]) > 0
    if assigner == STOCK[head][1]:
        return OWN, ""
    return (INSIDE if head == "ATSS" and assigner in ANYWHERE else FED), ""


def gradients(head: str, thr: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Size of the gradient of scores at each prior of an image, and which object it has, (N,) each."""
    name = STOCK[head][1]
    name = "MaxIoUAssigner" if head == "RepPoints" else name  # its second stage has scores
    model = build_head(head, {**settings_for(name, head), "ignore_iof_thr": thr}, stage="refine")
    kept: list[Any] = []
    calls: list[Any] = []

    def keep(method: Any, *args: Any) -> Any:
        kept.append(method(*args))
        for output in SCORES.get(head, (0,)):
            for level in kept[-1][output]:
                level.retain_grad()
        return kept[-1]

    with ExitStack() as stack:
        stack.enter_context(shadow(model, "forward", keep))
        stack.enter_context(watch(model, calls.append))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        losses = losses_of(model, head, samples(head, BOXES[:1]))
        sum(value for key, value in losses.items() if "loss" in key).backward()  # type: ignore[union-attr]
    call = calls[-1] if head == "RepPoints" else calls[0]
    generator = getattr(model, "prior_generator", None) or model.square_anchor_generator
    counts = generator.num_base_priors
    sizes = torch.zeros(len(call.result.gt_inds))
    for output in SCORES.get(head, (0,)):
        rows = [
            level.grad[0].abs().permute(1, 2, 0).reshape(-1, level.shape[1] // count).sum(dim=1)
            for level, count in zip(kept[0][output], counts)
        ]
        sizes += torch.cat(rows)
    return sizes, call.result.gt_inds


def leaves_out(head: str) -> bool:
    """Whether priors that ignore regions turn from background into ignored ones lose their gradient."""
    before, without = gradients(head, -1)
    after, found = gradients(head, 0.5)
    covered = (without == 0) & (found == -1)
    assert covered.any()
    assert (before[covered] > 0).any()
    kept = (found == 0) & (after > 0)
    assert kept.any()
    return not bool((after[covered] > 0).any())


def page(cells: Mapping[tuple[str, str], str], regions: Mapping[str, bool]) -> str:
    """The page as text."""
    heads = list(STOCK)
    lines = ["| | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]
    for assigner in SETTINGS:
        row = " | ".join(cells[assigner, head] for head in heads)
        lines.append(f"| {assigner.removesuffix('Assigner')} | {row} |")
    listed = [f"| {', '.join(h for h in heads if regions[h])} | yes |"]
    listed += [f"| {', '.join(h for h in heads if not regions[h])} | no |"]
    return TEXT.format(table="\n".join(lines), regions="\n".join(listed))


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    found = {(assigner, head): cell(assigner, head)[0] for head in STOCK for assigner in SETTINGS}
    PAGE.write_text(page(found, {head: leaves_out(head) for head in STOCK}))
    print(f"{PAGE} is written")
