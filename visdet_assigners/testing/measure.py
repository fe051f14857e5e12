"""What a call costs: operators and waits, which don't depend on the machine, and memory and time, which do."""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = {"_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "unique_consecutive", "bincount", "equal"}
"""Operators that wait for a device, since the host needs to know a value or a size."""
MASKED = {"index", "index_put", "index_put_"}
"""Operators that wait when they are given a boolean mask."""


class _HostReads(TorchFunctionMode):
    """Counts the methods that copy to the host; of tensors that are there already, nothing is dispatched for them."""

    def __init__(self, waits: Counter[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.cpu, Tensor.tolist):
            self.waits[func.__name__] += 1
        return func(*args, **(kwargs or {}))


class OperatorCounter(TorchDispatchMode):
    """Counts what is dispatched inside a ``with`` block.

    Attributes:
        operators: calls of operators by name, views aside: what a device would launch.
        waits: those among them for which the host would wait for a device.

    Example:
        >>> with OperatorCounter() as counter:
        ...     total = torch.ones(3).view(3, 1).sum().item()
        >>> counter.total, dict(counter.waits)
        (3, {'_local_scalar_dense': 1})
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self._reads = _HostReads(self.waits)

    def __enter__(self) -> OperatorCounter:
        self._reads.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._reads.__exit__(*error)

    @property
    def total(self) -> int:
        """Number of operators."""
        return self.operators.total()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name, device = func.overloadpacket.__name__, (kwargs or {}).get("device")
        to_host = name == "_to_copy" and device is not None and device.type == "cpu"
        if not _is_view(func, result):
            self.operators[name] += 1
        if name in WAITS or (name in MASKED and _has_mask(args)) or to_host:
            self.waits[name] += 1
        return result


def _is_view(func: Any, result: Any) -> bool:
    outputs = [output for output in tree_leaves(result) if isinstance(output, Tensor)]
    returns = [value.alias_info for value in func._schema.returns]
    aliases = [alias is not None and not alias.is_write for alias in returns]
    return bool(outputs) and bool(aliases) and all(aliases)


def _has_mask(args: Sequence[Any]) -> bool:
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1] or ())


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated calls.

    Attributes:
        median: of them.
        spread: half the range between the quartiles, in parts of the median.
    """

    median: float
    spread: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """Summarise at least one measurement."""
        median = statistics.median(seconds)
        low, _, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else (median, median, median)
        return cls(median, (high - low) / 2 / median)


def time_interleaved(calls: Sequence[Callable[[], Any]], rounds: int, warm_up: int = 1) -> list[Timing]:
    """Time several calls in turns, so that what else the machine does falls on all of them.

    Args:
        calls: without arguments; a device is waited for after each.
        rounds: how often each is timed, at least 1.
        warm_up: how often each is called before.
    """
    seconds: list[list[float]] = [[] for _ in calls]
    for number in range(warm_up + rounds):
        for call, own in zip(calls, seconds):
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number >= warm_up:
                own.append(time.perf_counter() - start)
    return [Timing.of(own) for own in seconds]


def peak_memory(call: Callable[[], Any], device: torch.device) -> int:
    """Bytes by which a call raises memory at its peak: what is allocated on a device, what is resident on a CPU.

    The resident set is read every millisecond beside the call, after what earlier calls left free was given back.
    """
    if device.type != "cpu":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    give_back_memory()
    before = highest = resident_memory()
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.001):
            highest = max(highest, resident_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        call()
    finally:
        highest = max(highest, resident_memory())
        done.set()
        watcher.join()
    return highest - before


def resident_memory() -> int:
    """Bytes of this process that are in memory now (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmRSS")


def give_back_memory() -> None:
    """Return what is free to the system, so that the next call has to ask for it (Linux with glibc)."""
    import ctypes

    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
