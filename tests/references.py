"""Rules as plain loops, which more than one test compares with; a test module is never imported by another."""


def plain_scale_range(priors, gts, level_sizes, ranges, strides, radius):
    """The smallest box around each point among those that its level is for."""
    decided, row = [], 0
    for size, (least, most), stride in zip(level_sizes, ranges, strides):
        for x1, y1, x2, y2 in priors[row : row + size].tolist():
            x, y = (x1 + x2) / 2, (y1 + y2) / 2
            best = (float("inf"), -1)
            for number, (left, top, right, bottom) in enumerate(gts.tolist()):
                to_borders = (x - left, y - top, right - x, bottom - y)
                from_center = max(abs(x - (left + right) / 2), abs(y - (top + bottom) / 2))
                near = radius is None or from_center < radius * stride
                if min(to_borders) > 0 and least <= max(to_borders) <= most and near:
                    best = min(best, ((right - left) * (bottom - top), number))
            decided.append(best[1])
        row += size
    return decided
