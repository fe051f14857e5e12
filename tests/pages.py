"""The pages of the repository, taken apart: blocks of code, links, anchors, and the commands that they show."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolbox import ROOT, load_tool
from visdet_assigners import command_line

FOLDERS = ("configs", "tests", "tools", "visdet_assigners")
PAGES = sorted([*ROOT.glob("*.md"), *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))])
PAGES = [page for page in PAGES if ".mim" not in page.parts]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the number of lines of the page before it."""

    language: str
    text: str
    offset: int


@functools.cache
def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2], text[: found.start(2)].count("\n"))
        for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


@functools.cache
def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@functools.cache
def anchors(page: Path) -> set[str]:
    """What its headings are linked by, as GitHub makes it."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        anchor = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        found.add(anchor if anchor not in found else f"{anchor}-1")
    return found


def links(page: Path) -> list[str]:
    """Targets of its links and pictures, addresses aside."""
    text = re.sub(r"`[^`]*`", "", prose(page).replace("\n", " "))
    targets = re.findall(r"\]\(([^()\s]+)\)", text)
    return [target for target in targets if not target.startswith(("https://", "http://"))]


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command of a page, in shell blocks and in the text."""
    lines = []
    for block in blocks(page):
        if block.language in ("shell", "bash"):
            lines += re.split(r"\n| && | \| |; ", block.text.replace("\\\n", " "))
    code = re.sub(r"\s*\n\s*", " ", prose(page))
    lines += re.findall(r"`([^`]+)`", code)
    for line in lines:
        try:
            yield shlex.split(line, comments=True)
        except ValueError:  # half a quotation
            continue


def tool_of(words: list[str]) -> tuple[str, list[str]] | None:
    """The script of ``tools/`` that a command runs, with its options."""
    for number, word in enumerate(words):
        name = word.removeprefix("tools/")
        if word != name and re.fullmatch(r"\w+\.(py|sh)", name):
            return name, words[number + 1 :]
        if number == 0 and len(words) > 1 and re.fullmatch(r"\w+\.(py|sh)", name) and (ROOT / "tools" / name).exists():
            return name, words[1:]
        if word == "visdet-assigners" and number + 1 < len(words):
            return words[number + 1], words[number + 2 :]
    return None


@functools.cache
def options_of(tool: str) -> set[str]:
    """What ``--help`` of a tool or command names."""
    module = command_line.modules().get(tool)
    main = importlib.import_module(f"visdet_assigners.commands.{module}").main if module else None
    main = main or load_tool(tool.removesuffix(".py")).main
    shown, argv = io.StringIO(), sys.argv
    sys.argv = [tool, "--help"]
    try:
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            main()
    finally:
        sys.argv = argv
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", shown.getvalue()))


@functools.cache
def variables() -> set[str]:
    files = [file for folder in FOLDERS for pattern in ("*.py", "*.sh") for file in (ROOT / folder).rglob(pattern)]
    return {name for file in files for name in re.findall(r"\bVISDET_[A-Z_]+[A-Z]\b", file.read_text(encoding="utf-8"))}
