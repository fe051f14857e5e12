"""Work over many rows in blocks that fit a budget of memory."""

from __future__ import annotations

from collections.abc import Iterator

MEMORY_BUDGET = 256 * 1024**2
"""Bytes that the temporaries of one block may take."""


def split_rows(num_rows: int, bytes_per_row: int, budget: int | None = None) -> Iterator[slice]:
    """Cut ``num_rows`` rows into slices whose temporaries fit the budget; a slice has at least one row.

    Args:
        num_rows: rows in all; 0 gives no slice.
        bytes_per_row: what the temporaries of one row take.
        budget: bytes, ``MEMORY_BUDGET`` if None.

    Example:
        >>> list(split_rows(5, bytes_per_row=100, budget=250))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    budget = MEMORY_BUDGET if budget is None else budget
    step = max(1, budget // max(1, bytes_per_row))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))
