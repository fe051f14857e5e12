"""Any assigner in any head that can feed it: what a head leaves out of its call is filled in from what it has.

Importing this wraps ``loss`` and ``loss_and_predict`` of mmdet's dense heads, see `stock_heads`.
"""

from visdet_assigners.adapting.adapter import adapt_assigner
from visdet_assigners.adapting.predictions import fed_by
from visdet_assigners.adapting.stock_heads import adapt_stock_heads

__all__ = ["adapt_assigner", "adapt_stock_heads", "fed_by"]

adapt_stock_heads()
