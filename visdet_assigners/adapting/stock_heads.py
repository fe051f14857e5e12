"""mmdet's own heads, as a config names them, work with assigners of this package that they were not written for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mmdet.models.dense_heads.base_dense_head import BaseDenseHead

from visdet_assigners.adapting.adapter import adapt_assigner

METHODS = ("loss", "loss_and_predict")


def adapt_stock_heads() -> None:
    """Wrap the methods by which all dense heads train; again is harmless.

    A head is adapted while it runs and only where it holds an assigner of this package; a call that is complete as it
    is goes through as it is.  Heads that replace both methods, as those of DETR's line do, are not adapted.
    """
    for name in METHODS:
        method = vars(BaseDenseHead)[name]
        if not hasattr(method, "_adapts"):
            setattr(BaseDenseHead, name, _adapting(method))


def _adapting(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def adapted(self: Any, x: Any, batch_data_samples: Any, *args: Any, **kwargs: Any) -> Any:
        with adapt_assigner(self, batch_data_samples, only_ours=True):
            return method(self, x, batch_data_samples, *args, **kwargs)

    adapted._adapts = True  # type: ignore[attr-defined]
    return adapted
