"""The options that commands share."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from visdet_assigners.errors import UserError


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser that answers a wrong option with one line instead of its whole usage."""

    def error(self, message: str) -> NoReturn:
        """Print ``message`` and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message}; {self.prog} --help lists the options\n")


class ConfigOptions(argparse.Action):
    """mmengine's KEY=VALUE options, with a message where one isn't of that form."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        """Check the options and put them into the namespace."""
        for option in values:
            key, equals, value = option.partition("=")
            if not key or not equals:
                parser.error(f"{option_string} takes KEY=VALUE, not {option!r}")
            if value.count("[") != value.count("]") or value.count("(") != value.count(")"):
                parser.error(f"{option_string}: the brackets of {option!r} don't match")
        from mmengine.config import DictAction  # here, since --help would wait for it

        DictAction(self.option_strings, self.dest, self.nargs)(parser, namespace, values, option_string)


def add_config_arguments(parser: argparse.ArgumentParser, assigners: bool = True) -> None:
    """Add the config file and what changes it: ``--cfg-options`` and, unless a tool decides that, ``--assigners``."""
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=ConfigOptions,
        default={},
        metavar="KEY=VALUE",
        help="settings that replace those of the config, e.g. data_root=FOLDER model.backbone.depth=50; lists as "
        'KEY="[a,b]" without blanks. data_root reaches every data set and metric of the config',
    )
    if not assigners:
        return
    parser.add_argument(
        "--assigners",
        choices=["config", "visdet", "mmdet"],
        default="config",
        help="whose label assigners, match costs and IoU calculators to use: those the config names (default), ours "
        "wherever we have one of that name, or mmdet's",
    )


def check_max_images(number: int | None) -> None:
    """Raise `UserError` where ``--max-images`` is given and asks for none."""
    if number is not None and number < 1:
        raise UserError(f"--max-images {number}: give a number of images, at least 1")


def add_runner_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where the results go and how several processes are started."""
    parser.add_argument("--work-dir", help="folder for logs and models (default: the config's, else work_dirs/CONFIG)")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none", help="job launcher")
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0, help="set by the launcher")
