"""The linear sum assignment problem, solved on the host by scipy."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def linear_assignment(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Match rows to columns one to one at the lowest total cost.

    Crouse, IEEE Trans. Aerospace and Electronic Systems 52(4), 2016, doi:10.1109/TAES.2016.140952, as in
    ``scipy.optimize.linear_sum_assignment``.  The costs travel to the host once and the pairs back once.

    Args:
        cost: (N, M), finite; either may be 0.

    Returns:
        ``rows`` (P,) and ``columns`` (P,), int64 on the device of ``cost``; P = min(N, M), rows ascending.

    Raises:
        ValueError: a cost is NaN or infinite.

    Example:
        >>> linear_assignment(torch.tensor([[4., 1.], [2., 0.], [3., 2.]]))
        (tensor([0, 1]), tensor([1, 0]))
    """
    pairs = linear_sum_assignment(cost.detach().to("cpu", torch.promote_types(cost.dtype, torch.float32)).numpy())
    rows, columns = torch.stack([torch.from_numpy(side) for side in pairs]).to(cost.device)
    return rows, columns
