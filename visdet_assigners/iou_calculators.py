"""Overlap of boxes as an exchangeable part, in mmdet's form."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from visdet_assigners.functional.boxes import box_overlaps
from visdet_assigners.functional.similarities import kld, kld_reach, nwd, nwd_reach, sim_d, sim_d_reach
from visdet_assigners.functional.tensors import as_tensor
from visdet_assigners.options import number
from visdet_assigners.registry import register


class IoUCalculator(Protocol):
    """Anything that gives the (A, B) overlaps of (A, 4) and (B, 4) boxes."""

    def __call__(self, bboxes1: Tensor, bboxes2: Tensor, mode: str = "iou") -> Tensor:
        """Pairwise overlaps; ``mode`` is "iou", "iof" or "giou"."""
        ...


@register
class BboxOverlaps2D:
    """Overlap of xyxy boxes; a drop-in for mmdet's calculator of this name.

    Args:
        scale: divisor of the coordinates before they are made half precision, against overflow.
        dtype: "fp16" computes in half precision to save memory; None in the precision of the boxes.

    Example:
        >>> import torch
        >>> BboxOverlaps2D()(torch.tensor([[0., 0., 2., 2.]]), torch.tensor([[0., 0., 2., 1.]]))
        tensor([[0.5000]])
    """

    # What it promises to assigners, see `assigners.overlapping`.
    upright = True
    reach = 0.0
    takes_pairs = True
    blockwise = True

    def __init__(self, scale: float = 1.0, dtype: str | None = None) -> None:
        if dtype not in (None, "fp16"):
            raise ValueError(f"BboxOverlaps2D: dtype is {dtype!r}; choose None or 'fp16'")
        self.scale = scale
        self.dtype = dtype

    def __call__(self, bboxes1: Tensor, bboxes2: Tensor, mode: str = "iou", is_aligned: bool = False) -> Tensor:
        """Overlaps of boxes.

        Args:
            bboxes1: (A, 4) or (A, 5) xyxy (and score), tensor or ``BaseBoxes``; A may be 0.
            bboxes2: (B, 4) or (B, 5), alike.
            mode: "iou", "iof" (over the area of ``bboxes1``) or "giou".
            is_aligned: row i with row i; A must equal B.

        Returns:
            (A, B), or (A,) if aligned.  With ``dtype='fp16'`` half precision on a device, float32 on CPU.
        """
        overlaps = box_overlaps(self._prepare(bboxes1), self._prepare(bboxes2), mode, is_aligned)
        return overlaps.float() if self.dtype == "fp16" and overlaps.device.type == "cpu" else overlaps

    def _prepare(self, boxes: Tensor) -> Tensor:
        boxes = as_tensor(boxes)
        if boxes.shape[-1] not in (4, 5) and boxes.numel():
            raise ValueError(f"BboxOverlaps2D: boxes have {boxes.shape[-1]} columns; 4 (xyxy) or 5 are expected")
        boxes = boxes[..., :4] if boxes.ndim > 1 else boxes.reshape(0, 4)
        return (boxes / self.scale).half() if self.dtype == "fp16" else boxes

    def __repr__(self) -> str:
        return f"{type(self).__name__}(scale={self.scale}, dtype={self.dtype})"


@register
class BboxOverlaps2D_GLIP(BboxOverlaps2D):  # noqa: N801  (the name that configs use)
    """IoU of boxes whose right and bottom pixels belong to them, as GLIP (arXiv:2112.03857) was trained.

    Widths and heights count one pixel more; only the plain IoU is defined, as in mmdet, whatever ``mode`` says.
    """

    upright = True
    reach = 1.0
    takes_pairs = True
    blockwise = True

    def __call__(self, bboxes1: Tensor, bboxes2: Tensor, mode: str = "iou", is_aligned: bool = False) -> Tensor:
        """IoU of (A, 4) and (B, 4) xyxy boxes -> (A, B), or (A,) if aligned; ``mode`` changes nothing."""
        first, second = as_tensor(bboxes1)[..., :4], as_tensor(bboxes2)[..., :4]
        if not is_aligned:
            first, second = first[..., :, None, :], second[..., None, :, :]
        (x1, y1, x2, y2), (gt_x1, gt_y1, gt_x2, gt_y2) = first.unbind(-1), second.unbind(-1)
        width = (torch.min(x2, gt_x2) - torch.max(x1, gt_x1) + 1).clamp(min=0)
        height = (torch.min(y2, gt_y2) - torch.max(y1, gt_y1) + 1).clamp(min=0)
        overlap = width * height
        areas = (x2 - x1 + 1) * (y2 - y1 + 1) + (gt_x2 - gt_x1 + 1) * (gt_y2 - gt_y1 + 1)
        return overlap / (areas - overlap)


class Similarity:
    """What the similarities below have in common; each takes boxes as `BboxOverlaps2D` does.

    Args:
        floor: a similarity that isn't above it is 0, so that far pairs are left out of lists and blocks; 0 keeps all,
            which costs time and memory on a CPU.
        union: the larger of the similarity and the IoU, so that no object loses what it has by the IoU.

    ``mode="iof"`` is the plain share of the first boxes that the second cover, for ignore regions: a similarity has no
    share.  ``mode="giou"`` is refused: there is no such measure.
    """

    def __init__(self, floor: float = 0.01, union: bool = False) -> None:
        self.floor = number(type(self).__name__, "floor", floor, least=0, most=1)
        self.union = union

    def similarity(self, first: Tensor, second: Tensor, aligned: bool) -> Tensor:
        """The similarity of xyxy boxes, the ground truths being the first."""
        raise NotImplementedError

    def __call__(self, bboxes1: Tensor, bboxes2: Tensor, mode: str = "iou", is_aligned: bool = False) -> Tensor:
        """Similarities of boxes.

        Args:
            bboxes1: (..., A, 4) or (..., A, 5) xyxy (and score), tensor or ``BaseBoxes``; A may be 0.
            bboxes2: (..., B, 4) or (..., B, 5), alike.
            mode: "iou" for the similarity, "iof" for the plain share.
            is_aligned: row i with row i; A must equal B.

        Returns:
            (..., A, B), or (..., A) if aligned, at least in float32.

        Raises:
            ValueError: another mode.
        """
        first, second = (as_tensor(boxes) for boxes in (bboxes1, bboxes2))
        first, second = (boxes[..., :4] if boxes.ndim > 1 else boxes.reshape(0, 4) for boxes in (first, second))
        if mode == "iof":
            return box_overlaps(first, second, mode, is_aligned)
        if mode != "iou":
            text = "'iou' is the similarity, 'iof' the plain share"
            raise ValueError(f"{type(self).__name__}: mode {mode!r} isn't defined; {text}")
        found = self.similarity(first, second, is_aligned)
        return torch.maximum(found, box_overlaps(first, second, "iou", is_aligned)) if self.union else found

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"


@register
class NWDOverlaps(Similarity):
    """Normalised Gaussian Wasserstein distance, for objects of a few pixels; see `functional.similarities.nwd`.

    Boxes of a few pixels that lie side by side have IoU 0 and are similar here.  Known: on AI-TOD, whose objects have
    12.8 pixels, Faster R-CNN gains 6 AP by it in the first stage, and ATSS nothing (arXiv:2110.13389).  With anchors
    that fit the objects there is less to gain.  Objects of several C become unlike all but the nearest anchors and lose
    positives, unless ``union``.

    Args:
        constant: C in pixels of the image as the detector sees it: the mean of sqrt(width * height) of the training
            set's objects, which ``visdet-assigners measure-constants CONFIG`` tells.  12.8 is AI-TOD's.
        floor: see `Similarity`.
        union: see there.

    Symmetric.

    Example:
        >>> import torch
        >>> NWDOverlaps(constant=8.0)(torch.tensor([[0., 0., 8., 8.]]), torch.tensor([[8., 0., 16., 8.]]))
        tensor([[0.3679]])
    """

    upright = True
    takes_pairs = True
    blockwise = True
    reach = property(lambda self: nwd_reach(self.constant, self.floor))

    def __init__(self, constant: float = 12.8, floor: float = 0.01, union: bool = False) -> None:
        super().__init__(floor, union)
        self.constant = number("NWDOverlaps", "constant", constant, above=0)

    def similarity(self, first: Tensor, second: Tensor, aligned: bool) -> Tensor:
        """See `nwd`."""
        return nwd(first, second, self.constant, self.floor, aligned)


@register
class KLDOverlaps(Similarity):
    """Similarity by the Kullback-Leibler divergence of Gaussians, as RFLA has it; see `functional.similarities.kld`.

    Not symmetric: the first boxes are the ground truths, in whose own sizes distances count, so that small and large
    objects are treated alike.  It falls slowly, hence has a long reach: 7 sizes of an object with a floor of .01.

    Args:
        floor: see `Similarity`.
        union: see there.
    """

    upright = True
    takes_pairs = True
    blockwise = True
    reach = property(lambda self: kld_reach(self.floor))

    def similarity(self, first: Tensor, second: Tensor, aligned: bool) -> Tensor:
        """See `kld`."""
        return kld(first, second, self.floor, aligned)


@register
class SimDOverlaps(Similarity):
    """Similarity of place and shape, with weights of the data set; see `functional.similarities.sim_d`.

    Args:
        m: weight of what lies across, which ``visdet-assigners measure-constants CONFIG`` tells; 6.13 is VisDrone's.
        n: weight of what lies down, likewise; 4.59 is VisDrone's.
        floor: see `Similarity`.
        union: see there.

    Symmetric.
    """

    upright = True
    takes_pairs = True
    blockwise = True
    reach = property(lambda self: sim_d_reach(self.m, self.n, self.floor))

    def __init__(self, m: float = 6.13, n: float = 4.59, floor: float = 0.01, union: bool = False) -> None:
        super().__init__(floor, union)
        self.m, self.n = (number("SimDOverlaps", name, value, above=0) for name, value in (("m", m), ("n", n)))

    def similarity(self, first: Tensor, second: Tensor, aligned: bool) -> Tensor:
        """See `sim_d`."""
        return sim_d(first, second, self.m, self.n, self.floor, aligned)
