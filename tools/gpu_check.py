#!/usr/bin/env python
"""Check and measure on a GPU what needs one: the script for the day that one is at hand.

    python tools/gpu_check.py --out results
    python tools/gpu_check.py --device cpu --quick

Needs Python 3.10, torch 2.4 with numpy and scipy, and this package; where mmengine, mmcv's and mmdet's Python files can
be imported, mmdet's assigners are timed beside ours.  Operators that mmcv has to compile are replaced by ones that fail
when called.  Takes at most eight minutes.  Each check is tried whatever came of the others.  Writes ``gpu_check.json``
and ``gpu_check.md``; the exit status is 1 where a check failed, 2 where the device isn't there.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
ASSIGNERS = "mmdet.models.task_modules.assigners"


class Absent:
    """Makes Python find no package of a name: one that is there but can't be imported."""

    def __init__(self, name: str) -> None:
        self.name = name
        for loaded in [each for each in sys.modules if each.partition(".")[0] == name]:
            del sys.modules[loaded]

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Raise for that package."""
        if name.partition(".")[0] == self.name:
            raise ModuleNotFoundError(f"{self.name} can't be imported here", name=self.name)
        return None


class Operators(ModuleType):
    """Stands in for the operators that mmcv compiles: each is there, and fails when called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def operator(*args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError(f"mmcv's operator {name} is not compiled here")

        return operator


def import_one(name: str) -> tuple[ModuleType | None, str]:
    """A module, or None and why it can't be imported."""
    try:
        return importlib.import_module(name), ""
    except Exception as error:  # whatever a half-carried package raises
        return None, " ".join(f"{type(error).__name__}: {error}".split())[:200]


def import_mmdet() -> tuple[ModuleType | None, str]:
    """Import mmdet's assigners, or give None and why not; a mmengine that doesn't work is hidden from this package."""
    registry, why_not = import_one("mmengine.registry")
    if registry is None:
        sys.meta_path.insert(0, Absent("mmengine"))  # type: ignore[arg-type]
        return None, why_not
    if import_one("mmcv")[0] is not None and import_one("mmcv._ext")[0] is None:
        sys.modules["mmcv._ext"] = Operators("mmcv._ext")
    package, why_not = import_one("mmdet")
    if package is None:
        return None, why_not
    if "mmdet.models" not in sys.modules:  # without the detectors, which need more packages than the assigners do
        models = ModuleType("mmdet.models")
        models.__path__ = [str(Path(package.__file__ or "").parent / "models")]
        sys.modules["mmdet.models"] = models
    return import_one(ASSIGNERS)


def describe(device: torch.device, mmdet: ModuleType | None, why_not: str) -> dict[str, str]:
    """The device and the versions, for the page."""
    about = {"device": platform.processor() or platform.machine() or "a CPU"}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about = {"device": properties.name, "memory": f"{properties.total_memory / 2**30:.0f} GiB"}
        about |= {"compute capability": f"{properties.major}.{properties.minor}", "CUDA": str(torch.version.cuda)}
    about |= {"torch": torch.__version__, "Python": platform.python_version()}
    about["mmdet"] = getattr(sys.modules.get("mmdet"), "__version__", "there") if mmdet else f"not there ({why_not})"
    return about


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu takes a device's way on a CPU")
    parser.add_argument("--quick", action="store_true", help="small scenes and few rounds: whether it runs at all")
    parser.add_argument("--minutes", type=float, default=7.5, help="after which no check begins (default: 7.5)")
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), help="folder to write into")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks."""
    args = parse_args(argv)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("gpu_check: torch finds no CUDA device; --device cpu tries the script itself", file=sys.stderr)
        return 2
    sys.path.insert(0, str(ROOT))
    mmdet, why_not = import_mmdet()

    from visdet_assigners.testing.gpu.limits import run_compiling, run_limits
    from visdet_assigners.testing.gpu.outcomes import Session
    from visdet_assigners.testing.gpu.parity import run_parity
    from visdet_assigners.testing.gpu.times import run_times

    session = Session(device, 60 * args.minutes, args.quick)
    about = describe(device, mmdet, why_not)
    for part in (run_parity, run_limits, lambda own: run_times(own, mmdet, why_not), run_compiling):
        part(session)
        session.write(args.out, about)  # what is there so far, should the next one end the process
    print(f"written to {args.out / 'gpu_check.json'} and {args.out / 'gpu_check.md'}")
    return 1 if session.failed else 0


if __name__ == "__main__":
    sys.exit(main())
