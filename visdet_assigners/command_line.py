"""The commands of the package, ``visdet-assigners COMMAND`` or ``python -m visdet_assigners COMMAND``.

Imports nothing heavy, so that ``--help`` answers at once.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

NAME = "visdet-assigners"

COMMANDS = {
    "See what is assigned": {
        "report": ("report", "what each object of a data set gets, as one HTML page and as JSON"),
        "browse": ("browse", "pictures of the positives and ignored ones, image by image"),
        "compare": ("compare", "two assigners on the same images, and on demand what they teach"),
        "measure-constants": (
            "measure_constants",
            "the constants of NWD and SimD for a data set, to put into a config",
        ),
        "conflicts": ("conflicts", "where the heads of a Co-DETR disagree"),
    },
    "Train and test": {
        "check-data": ("check_data", "look at a config, its annotations and pictures before a training"),
        "train": ("train", "train a detector, with mmdet's options and --assigners"),
        "test": ("test", "evaluate a checkpoint, save or draw its predictions"),
        "summarize": ("summarize", "the evaluations of several trainings as one table"),
        "strip-codetr": ("strip_codetr", "the plain detector of a Co-DETR checkpoint"),
        "make-shapes": ("make_shapes", "draw a small data set of coloured shapes to try things on"),
    },
    "Prove that it is as mmdet's": {
        "check-zoo": ("check_zoo", "every assigner of mmdet's configs, ours against theirs"),
        "compare-losses": ("compare_losses", "two trainings from one seed, loss by loss to the last bit"),
        "benchmark": ("benchmark", "operators, memory and time, mmdet's and ours side by side"),
    },
}
"""What they are for, their names, and for each its module in `visdet_assigners.commands` and what it does."""


def usage() -> str:
    """Return the list of commands."""
    width = max(len(name) for group in COMMANDS.values() for name in group)
    lines = [f"usage: {NAME} COMMAND [options]   (or python -m visdet_assigners COMMAND [options])"]
    for purpose, group in COMMANDS.items():
        lines += ["", f"{purpose}:", *(f"  {name:{width}}  {what}" for name, (_, what) in group.items())]
    return "\n".join([*lines, "", f"{NAME} COMMAND --help tells the options of one."])


def modules() -> dict[str, str]:
    """Return the module of each command, in `visdet_assigners.commands`."""
    return {name: module for group in COMMANDS.values() for name, (module, _) in group.items()}


def answer_at_once() -> None:
    """List the commands or a command's options, or refuse one that there isn't, and exit: where this is the program.

    The package's first import calls it, since Python imports a package before what is inside it, and torch would take
    seconds.
    """
    original = sys.orig_argv
    if sys.argv[:1] == ["-m"]:  # Python is still looking for the module
        place = original.index("-m") + 1 if "-m" in original else len(original)
        is_program, arguments = original[place : place + 1] == ["visdet_assigners"], original[place + 1 :]
    else:
        program = sys.argv[0].replace("\\", "/").rpartition("/")[2] if sys.argv else ""
        is_program, arguments = program.partition(".")[0] == NAME, sys.argv[1:]
    if not is_program:
        return
    if not arguments or arguments[0] not in modules():
        main(arguments)
        sys.exit(0)
    if {"-h", "--help"} & set(arguments[1:]):
        parser = getattr(importlib.import_module("visdet_assigners.commands.parsers"), modules()[arguments[0]])()
        parser.prog = f"{NAME} {arguments[0]}"
        parser.parse_args(arguments[1:])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that the first argument names."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return
    name = arguments[0]
    if name not in modules():
        print(f"{NAME}: error: there is no command {name}; {NAME} --help lists them", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"{NAME} {name}", *arguments[1:]]  # messages call it by its name
    try:
        status = importlib.import_module(f"visdet_assigners.commands.{modules()[name]}").main()
    except KeyboardInterrupt:
        print(f"\n{NAME} {name}: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(status)
