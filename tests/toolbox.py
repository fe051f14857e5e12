"""The commands and the tools as modules, for tests."""

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]


def load_tool(name: str) -> ModuleType:
    """Import ``tools/NAME.py``, or where it only calls a command, that: it has the functions that tests look into."""
    path = ROOT / "tools" / f"{name}.py"
    command = re.search(r"^from (visdet_assigners\.commands\.\w+) import main$", path.read_text(), re.MULTILINE)
    if command:
        return importlib.import_module(command[1])
    spec = importlib.util.spec_from_file_location(f"tool_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
