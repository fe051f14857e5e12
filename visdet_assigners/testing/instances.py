"""``InstanceData``: mmengine's, and where it is missing what scenes need of it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from torch import Tensor


class Instances:
    """Tensors with as many rows each, by name.

    Example:
        >>> import torch
        >>> some = Instances(labels=torch.tensor([3, 5]))
        >>> len(some), some[torch.tensor([False, True])].labels, "boxes" in some
        (2, tensor([5]), False)
    """

    def __init__(self, **fields: Tensor) -> None:
        vars(self).update(fields)

    def __len__(self) -> int:
        return len(next(iter(vars(self).values()), ()))

    def __contains__(self, name: str) -> bool:
        return name in vars(self)

    def __getitem__(self, rows: Tensor) -> Instances:
        return Instances(**{name: value[rows] for name, value in vars(self).items()})

    def to(self, device: Any) -> Instances:
        """A copy on a device."""
        return Instances(**{name: value.to(device) for name, value in vars(self).items()})


InstanceData: Any = Instances
with suppress(ImportError):
    from mmengine.structures import InstanceData  # type: ignore[no-redef]  # noqa: F401
