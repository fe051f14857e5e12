"""What came of the checks: one after another whatever happens, kept as JSON and as a page."""

from __future__ import annotations

import json
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

Status = Literal["ok", "failed", "skipped"]
Numbers = dict[str, Any]
RELATIVE = 1e-4
"""Difference of overlaps and metrics, in parts of them, that rounding of two devices may make."""


class SkippedError(Exception):
    """A check that can't be done here."""


class FailedError(Exception):
    """A check that came out wrong, with the numbers that show it."""

    def __init__(self, text: str, **numbers: Any) -> None:
        super().__init__(text)
        self.numbers = numbers


@dataclass(frozen=True)
class Outcome:
    """What came of one check."""

    group: str
    name: str
    status: Status
    text: str
    seconds: float
    numbers: Numbers = field(default_factory=dict)


class Session:
    """Runs checks on a device until the time is up.

    Args:
        device: to check.
        seconds: after which no check begins.
        quick: whether few scenes and rounds are enough.
        say: is told each outcome in one line.
    """

    def __init__(self, device: torch.device, seconds: float, quick: bool, say: Callable[[str], None] = print) -> None:
        self.device = device
        self.quick = quick
        self.outcomes: list[Outcome] = []
        self._say = say
        self._begin = time.monotonic()
        self._seconds = seconds

    @property
    def cuda(self) -> bool:
        """Whether the device is one, and no stand-in."""
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds until no check begins."""
        return self._seconds - (time.monotonic() - self._begin)

    def check(self, group: str, name: str, function: Callable[..., tuple[str, Numbers]], *args: Any) -> None:
        """Run a check, which returns a text and numbers; what it raises is kept, and the next one follows."""
        start, status = time.monotonic(), "ok"
        numbers: Numbers = {}
        if self.left <= 0:
            status, text = "skipped", "no time was left"
        else:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of assigners, about what they are given on purpose
                    text, numbers = function(self, *args)
                if self.cuda:
                    torch.cuda.synchronize()  # an error of a kernel belongs to the check that launched it
            except SkippedError as reason:
                status, text = "skipped", str(reason)
            except FailedError as reason:
                status, text, numbers = "failed", str(reason), reason.numbers
            except Exception as error:
                status, text = "failed", " ".join(f"{type(error).__name__}: {error}".split())[:500]
                numbers = {"traceback": traceback.format_exc()[-3000:]}
        seconds = time.monotonic() - start
        self.outcomes.append(Outcome(group, name, status, text, round(seconds, 3), numbers))  # type: ignore[arg-type]
        self._say(f"{status:7} {group}: {name}: {text}")

    @property
    def failed(self) -> bool:
        """Whether a check failed."""
        return any(outcome.status == "failed" for outcome in self.outcomes)

    def write(self, folder: Path, about: Mapping[str, str]) -> None:
        """Write ``gpu_check.json`` and ``gpu_check.md``."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {"about": dict(about), "outcomes": [asdict(outcome) for outcome in self.outcomes]}
        (folder / "gpu_check.json").write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
        (folder / "gpu_check.md").write_text(page(about, self.outcomes), encoding="utf-8")


def page(about: Mapping[str, str], outcomes: Sequence[Outcome]) -> str:
    """The outcomes as a page: counts, what went wrong, and a table of each group."""
    counts, groups = Counter(outcome.status for outcome in outcomes), dict.fromkeys(each.group for each in outcomes)
    lines = [
        f"# Checked on {about['device']}",
        "",
        "With this page you can see what was tried on this device, and what came of it.  `python tools/gpu_check.py` "
        "writes it; all numbers are in `gpu_check.json` beside it.",
        "",
        "Contents: "
        + " · ".join(f"[{group}](#{group.replace(',', '').replace(' ', '-').lower()})" for group in groups),
        "",
        *(f"* {name}: {value}" for name, value in about.items()),
        f"* {counts['ok']} ok, {counts['failed']} failed, {counts['skipped']} skipped",
    ]
    for group in groups:
        own = [outcome for outcome in outcomes if outcome.group == group]
        lines += ["", f"## {group}", "", "| check | | what came of it | seconds |", "|---|---|---|---:|"]
        for outcome in own:
            status = outcome.status if outcome.status == "ok" else f"**{outcome.status}**"
            lines.append(f"| {outcome.name} | {status} | {_cell(outcome.text)} | {outcome.seconds:.1f} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def compare(
    mine: Mapping[str, Tensor], reference: Mapping[str, Tensor], what: str = "the CPU's"
) -> tuple[str, Numbers]:
    """Compare the tensors of two results: whole numbers exactly, others up to the rounding of two devices.

    Raises:
        FailedError: they differ.
    """
    numbers: Numbers = {}
    wrong = sorted(mine.keys() ^ reference.keys())
    for name in mine.keys() & reference.keys():
        own, other = mine[name], reference[name]
        if own.shape != other.shape or own.dtype != other.dtype:
            wrong.append(f"{name} {tuple(own.shape)} {own.dtype}, not {tuple(other.shape)} {other.dtype}")
        elif not own.is_floating_point():
            numbers[f"{name} that differ"] = differ = int((own != other).sum())
            wrong += [f"{differ} of {own.numel()} {name}"] * bool(differ)
        else:
            same = (own == other) | (own.isnan() & other.isnan())
            gap = (own - other).abs().where(~same, 0.0).double()
            largest = float(gap.max()) if gap.numel() else 0.0
            numbers[f"{name}, largest difference"] = largest
            allowed = RELATIVE * (other.abs().where(other.isfinite(), 0.0).double() + 1e-3)
            wrong += [f"{name} by up to {largest:.2g}"] * bool((~(gap <= allowed)).any())
    if wrong:
        raise FailedError(f"differs from {what} in {', '.join(wrong)}", **numbers)
    worst = max((value for name, value in numbers.items() if "largest" in name), default=0.0)
    return f"equal to {what}" + (f"; overlaps and metrics within {worst:.1e}" if worst else ""), numbers
