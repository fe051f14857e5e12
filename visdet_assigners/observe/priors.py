"""Read the grid out of a list of priors: centres, levels and strides.

Assigners get the priors of all levels in one tensor, as boxes or as points, and often without the level sizes.
"""

import torch
from torch import Tensor

# Anchors on a grid have at most a few dozen shapes; proposals have about as many as there are boxes.
_PRIORS_PER_SHAPE = 4
# Anchor sizes are equal up to float32 rounding at coordinates of some thousand pixels.
_SIZE_STEP = 0.1
# Strides of detectors start at 4; closer centres are those of proposals.
_SMALLEST_STRIDE = 1.0
_STRIDE_TOLERANCE = 0.01  # of a stride


def are_points(priors: Tensor) -> bool:
    """Whether priors are points with strides, (x, y, stride) or (x, y, stride, stride), rather than xyxy boxes.

    Four columns are ambiguous in themselves: a grid of points, read as boxes, has inverted ones and a square corner.
    """
    if priors.shape[-1] == 3:
        return True
    x1, y1, x2, y2 = priors[:, :4].unbind(1)
    return bool((x2 == y2).all() and ((x2 < x1) | (y2 < y1)).any())


def centers_and_sizes(priors: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (N, 2) and sizes (N, 2) of boxes; of points, the points themselves and their strides."""
    if are_points(priors):
        return priors[:, :2], priors[:, [2, -1]]
    return (priors[:, :2] + priors[:, 2:4]) / 2, priors[:, 2:4] - priors[:, :2]


def infer_level_sizes(priors: Tensor) -> tuple[int, ...] | None:
    """Split priors on grids into their levels: shapes that alternate belong to one level.

    Priors may be missing (heads drop those outside the image).  Shapes that occur once and follow each other make one
    level: several anchors at one location.

    Args:
        priors: (N, 4) boxes, or (N, 3) or (N, 4) points with strides, levels one after another; N may be 0.

    Returns:
        Priors in each level, which sums to N, or None for priors that are on no grid, such as proposals.
    """
    num_priors = len(priors)
    if num_priors == 0:
        return ()
    width, height = (centers_and_sizes(priors)[1] / _SIZE_STEP).round().long().unbind(1)
    # One number for width and height: pairs are sorted ten times more slowly.
    shapes, shape_of = torch.unique(width * 2**32 + height, return_inverse=True)  # (S,), (N,)
    if len(shapes) * _PRIORS_PER_SHAPE > num_priors:
        return None
    position = torch.arange(num_priors, device=priors.device)
    first = position.new_full((len(shapes),), num_priors).scatter_reduce(0, shape_of, position, "amin")
    last = position.new_zeros(len(shapes)).scatter_reduce(0, shape_of, position, "amax")
    ends: list[int] = []  # last prior of each level
    one_location = False  # the level at hand has seen every shape once
    for begin, end in sorted(zip(first.tolist(), last.tolist())):
        single = begin == end
        if ends and (begin <= ends[-1] or (single and one_location)):
            ends[-1] = max(ends[-1], end)
            one_location &= single
        else:
            ends.append(end)
            one_location = single
    level_sizes = tuple(end - begin for begin, end in zip([-1, *ends], ends))
    levels = centers_and_sizes(priors)[0].split(level_sizes)
    return level_sizes if all(_is_grid(centers) for centers in levels) else None


def grid_stride(centers: Tensor) -> float | None:
    """Distance of neighbouring columns (or rows, in a grid of one column) of a level; None for a single location.

    Args:
        centers: (N, 2) pixels.
    """
    return _step(centers[:, 0]) or _step(centers[:, 1])


def _step(coordinates: Tensor) -> float | None:
    """Smallest distance between coordinates, to a tenth of a pixel; None where all are equal."""
    steps = torch.unique(coordinates.round(decimals=1)).diff()
    return round(float(steps.min()), 1) if len(steps) else None


def _is_grid(centers: Tensor) -> bool:
    for coordinates in centers.unbind(1):
        step = _step(coordinates)
        if step is None:
            continue
        cells = (coordinates - coordinates.min()) / step
        if step < _SMALLEST_STRIDE or bool(((cells - cells.round()).abs() > _STRIDE_TOLERANCE).any()):
            return False
    return True
