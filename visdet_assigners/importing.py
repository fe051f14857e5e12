"""To be told when a module of another package has been imported, without importing it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def when_imported(name: str, then: Callable[[], Any]) -> None:
    """Call a function once a module is there: now, or right after its first import; never if there is none.

    Until then a finder that finds nothing itself stands in ``sys.meta_path``: nothing else hears of an import.

    Args:
        name: of the module, in full.
        then: is called without arguments, in the thread that imports; what it raises, the import raises.
    """
    if name in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, _Watch(name, then))


class _Watch(MetaPathFinder):
    """Hands on what the other finders say of one module, with a loader that tells when it is done."""

    def __init__(self, name: str, then: Callable[[], Any]) -> None:
        self.name = name
        self.then = then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            sys.meta_path.insert(0, self)
        else:
            spec.loader = _Told(spec.loader, self)
        return spec


class _Told(Loader):
    """Loads as another loader does, steps aside for it, and tells."""

    def __init__(self, loader: Loader, watch: _Watch) -> None:
        self.loader = loader
        self.watch = watch

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        try:
            self.loader.exec_module(module)
        except BaseException:
            sys.meta_path.insert(0, self.watch)  # the import may be tried again
            raise
        self.watch.then()
