#!/usr/bin/env python
"""Mutation testing: change the sources in one place at a time, and count the changes that no test notices.

    python tools/mutate.py visdet_assigners/functional visdet_assigners/assigners \\
        --tests tests/functional tests/assigners tests/reliability

All tests run once, to learn which lines each of them reaches and how long it takes.  Then each mutant gets a process of
its own, forked where the tests are loaded already, which puts the changed code in place and runs the tests that reach
it, the fastest first, until one fails.  A mutant survives where none does within ``--seconds``; one that hangs or takes
all memory is killed.  Survivors that change nothing that could be seen are listed with their reasons in ``--known``.

``--again`` looks once more at the survivors of a result, with more seconds or new tests, and counts them in:

    python tools/mutate.py visdet_assigners/functional --seconds 3 --json result.json
    python tools/mutate.py visdet_assigners/functional --seconds 60 --again result.json --json result.json

A script in one file, hence the length.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest
from tqdm import tqdm

from visdet_assigners.commands.errors import user_errors
from visdet_assigners.commands.options import ArgumentParser
from visdet_assigners.errors import UserError

OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
PAIRS = (
    ("min", "max"), ("amin", "amax"), ("argmin", "argmax"), ("minimum", "maximum"), ("any", "all"),
    ("zeros", "ones"), ("zeros_like", "ones_like"), ("new_zeros", "new_ones"), ("ceil", "floor"), ("le", "lt"),
    ("ge", "gt"), ("add_", "sub_"), ("mul_", "div_"), ("clamp_min", "clamp_max"), ("clamp_min_", "clamp_max_"),
    ("cummin", "cummax"), ("sum", "prod"), ("log", "log1p"), ("exp", "expm1"), ("eq", "ne"),
)  # fmt: skip
NAMES = {name: other for a, b in PAIRS for name, other in ((a, b), (b, a))}
ALIVE = ("survived", "not reached")
KILLED = ("killed", "timed out")
MEMORY = 8 * 1024**3
"""Bytes of address space that a mutant may take beyond what is taken when it starts."""


def alternatives(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of one node of a syntax tree, each a small mistake."""
    match node:
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int()):
            yield ast.Constant(node.value + 1)
        case ast.Constant(value=float()):
            yield ast.Constant(2 * node.value + (node.value == 0))
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            yield node.operand
        case ast.IfExp():
            yield ast.IfExp(node.test, node.orelse, node.body)
        case ast.Attribute() if node.attr in NAMES:
            yield ast.Attribute(node.value, NAMES[node.attr], node.ctx)
        case ast.Name() if node.id in NAMES:
            yield ast.Name(NAMES[node.id], node.ctx)
        case ast.Raise() | ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case _:
            yield from (other() for other in OPERATORS.get(type(node), ()))


@dataclass(frozen=True)
class Mutant:
    """A change at one place of a file.

    Attributes:
        file: relative to the root.
        number: of the change in its file, in the order of the syntax tree.
        lines: first and last line of the changed expression.
        scope: lines of the definition whose default value it changes, of the whole file for a constant of a module or
            class; None for code of a function, which ``lines`` reaches.
        text: the changed expression before and after.
    """

    file: str
    number: int
    lines: tuple[int, int]
    scope: tuple[int, int] | None
    text: str


class Source:
    """A file and all its mutants."""

    def __init__(self, root: Path, file: str) -> None:
        self.path = root / file
        self.file = file
        self.text = self.path.read_text(encoding="utf-8")
        self.lines = self.text.splitlines()
        self.tree = ast.parse(self.text)
        self.mutants = [Mutant(file, number, *place[3:]) for number, place in enumerate(self._places())]

    def _places(self) -> Iterator[tuple[Any, ...]]:
        """Parent, field with position, replacement, lines, scope and text of each possible change."""
        whole = (1, len(self.lines))
        pending: list[tuple[ast.AST, tuple[int, int] | None, ast.AST | None]] = [(self.tree, whole, None)]
        while pending:
            parent, scope, spot = pending.pop()
            if hasattr(parent, "lineno") and isinstance(parent, ast.expr | ast.stmt):
                spot = parent
            for name, value in ast.iter_fields(parent):
                if name in ("annotation", "returns", "decorator_list", "type_comment", "bases"):
                    continue
                for at, node in enumerate(value) if isinstance(value, list) else ((None, value),):
                    if not isinstance(node, ast.AST):
                        continue
                    # An operator has no place of its own: that of the expression it stands in.
                    shown = node if hasattr(node, "lineno") else spot
                    if shown is not None:
                        lines = (shown.lineno, shown.end_lineno or shown.lineno)
                        for other in alternatives(node):
                            change = f"{describe(node, parent)} -> {describe(other, parent)}"
                            yield parent, (name, at), other, lines, scope, change
                    inner = scope
                    if isinstance(parent, ast.FunctionDef | ast.Lambda):
                        own = (parent.lineno, parent.end_lineno or parent.lineno)
                        inner = None if name == "body" or scope is None else own
                    pending.append((node, inner, spot))

    def changed(self, number: int) -> ast.Module:
        """The syntax tree with one change, which stays in it."""
        for found, (parent, (name, at), other, *_) in enumerate(self._places()):
            if found == number:
                if at is None:
                    setattr(parent, name, other)
                else:
                    getattr(parent, name)[at] = other
                return ast.fix_missing_locations(self.tree)
        raise IndexError(number)


def describe(node: ast.AST, parent: ast.AST) -> str:
    """An expression as written, an operator by its name."""
    if isinstance(node, ast.Pass):
        return "nothing"
    return ast.unparse(node) if isinstance(node, ast.expr | ast.stmt) else type(node).__name__


def codes(code: CodeType) -> Iterator[CodeType]:
    """A code object and all inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def put_in_place(tree: ast.Module, path: Path) -> None:
    """Give every living function of a file its code, defaults and constants from a changed syntax tree."""
    new = {(code.co_name, code.co_firstlineno): code for code in codes(compile(tree, str(path), "exec"))}
    module = next(m for m in sys.modules.values() if getattr(m, "__file__", None) == str(path))
    set_constants(tree.body, module, module)  # first: defaults may name them
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    # The first line of a decorated function's code is that of its first decorator.
    arguments = {((*node.decorator_list, node)[0].lineno, node.name): node.args for node in functions}
    for function in gc.get_objects():
        if type(function) is not FunctionType or function.__code__.co_filename != str(path):
            continue
        old = function.__code__
        function.__code__ = new[old.co_name, old.co_firstlineno]
        given = arguments.get((old.co_firstlineno, function.__name__))
        if given is not None:
            if given.defaults:
                function.__defaults__ = tuple(value_of(node, module) for node in given.defaults)
            pairs = zip(given.kwonlyargs, given.kw_defaults)
            if function.__kwdefaults__:
                function.__kwdefaults__ = {a.arg: value_of(node, module) for a, node in pairs if node is not None}


def value_of(node: ast.expr, module: Any) -> Any:
    """Value of an expression that stands in a module."""
    return FunctionType(compile(ast.Expression(node), module.__file__, "eval"), vars(module))()


def set_constants(body: Sequence[ast.stmt], owner: Any, module: Any) -> None:
    """Set the simple constants of a module and of its classes, wherever the package has imported them."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            set_constants(node.body, getattr(owner, node.name), module)
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(target, ast.Name) or node.value is None:
            continue
        if not isinstance(getattr(owner, target.id, None), int | float | tuple | dict):
            continue
        value, before = value_of(node.value, module), getattr(owner, target.id)
        if value == before:
            continue
        setattr(owner, target.id, value)
        for other in list(sys.modules.values()) if owner is module else ():
            if getattr(other, "__name__", "").startswith("visdet_assigners") and vars(other).get(target.id) is before:
                setattr(other, target.id, value)


class Reached:
    """Which lines of the sources each test reaches, and how long it takes; kept in a file for the next call."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.files = {str(source.path): source.file for source in sources}
        self.seconds: dict[str, float] = {}
        self.tests: dict[str, dict[int, list[str]]] = {}

    def record(self, items: Iterable[pytest.Item]) -> None:
        """Run tests, those left out that fail or are skipped."""
        reached: dict[str, dict[int, list[str]]] = {file: defaultdict(list) for file in self.files.values()}
        for item in tqdm(list(items), desc="reaching", unit="test"):
            lines: set[tuple[str, int]] = set()

            def on_line(frame: FrameType, event: str, _: Any, lines: set[tuple[str, int]] = lines) -> Any:
                if event == "line":
                    lines.add((frame.f_code.co_filename, frame.f_lineno))
                return on_line

            begin = time.perf_counter()
            sys.settrace(lambda frame, *_: on_line if frame.f_code.co_filename in self.files else None)
            try:
                passed = passes(item)
            finally:
                sys.settrace(None)
            if passed:
                self.seconds[item.nodeid] = time.perf_counter() - begin
                for path, line in lines:
                    reached[self.files[path]][line].append(item.nodeid)
        self.tests = {file: dict(lines) for file, lines in reached.items()}

    def of(self, mutant: Mutant, limit: float, always: Sequence[str] = ()) -> list[str]:
        """Tests to run, as many as should take ``limit`` seconds.

        First those of the file that is named after the source, then the fastest case of each test function.

        Args:
            mutant: what they must reach.
            limit: seconds.
            always: beginnings of the names of tests that look at defaults and constants without reaching them.
        """
        first, last = mutant.scope or mutant.lines
        found = {test for line in range(first, last + 1) for test in self.tests[mutant.file].get(line, ())}
        if mutant.scope is not None:
            found |= {test for test in self.seconds if test.startswith(tuple(always))}
        cases: dict[str, list[str]] = defaultdict(list)
        for test in sorted(found, key=self.seconds.__getitem__):
            cases[test.split("[")[0]].append(test)
        ranked = [(rank, self.seconds[test], test) for tests in cases.values() for rank, test in enumerate(tests)]
        own = f"test_{Path(mutant.file).stem}.py::"
        chosen: list[str] = []
        for _, seconds, test in sorted(ranked, key=lambda entry: (own not in entry[2], entry[0] > 0, entry[1])):
            if not chosen or seconds <= limit:
                limit -= seconds
                chosen.append(test)
        return chosen


def passes(item: pytest.Item) -> bool:
    """Run one test with its fixtures; whether it ran and nothing failed."""
    from _pytest.runner import runtestprotocol

    reports = runtestprotocol(item, nextitem=None, log=False)
    return all(report.passed for report in reports)


class Mutation:
    """A pytest plugin that runs the loaded tests once on the sources as they are, then on each mutant."""

    def __init__(
        self,
        sources: Sequence[Source],
        mutants: Sequence[Mutant],
        limit: float,
        kept: Path | None,
        always: Sequence[str] = (),
        equal: Collection[Mutant] = (),
    ) -> None:
        self.sources = {source.file: source for source in sources}
        self.mutants = mutants
        self.limit = limit
        self.kept = kept
        self.always = always
        self.equal = equal
        self.verdicts: dict[Mutant, str] = {}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Take the place of pytest's own loop."""
        items = {item.nodeid: item for item in session.items}
        reached = self._reached(items)
        counts: Counter[str] = Counter()
        with tqdm(self.mutants, desc="mutating", unit="mutant") as bar:
            for mutant in bar:
                if mutant in self.equal:
                    self.verdicts[mutant] = "survived"
                    continue
                tests = reached.of(mutant, self.limit, self.always)
                patience = 20 + 5 * sum(reached.seconds[test] for test in tests)
                verdict = self._judge(mutant, [items[test] for test in tests], patience) if tests else "not reached"
                if verdict in ALIVE:
                    bar.write(f"{verdict}: {mutant.file}:{mutant.lines[0]}: {mutant.text}")
                self.verdicts[mutant] = verdict
                counts[verdict] += 1
                bar.set_postfix(counts)
        return True

    def _reached(self, items: dict[str, pytest.Item]) -> Reached:
        reached = Reached(list(self.sources.values()))
        texts = [source.text for source in self.sources.values()]
        key = hashlib.sha256("\0".join([*texts, *items]).encode()).hexdigest()
        kept = json.loads(self.kept.read_text()) if self.kept and self.kept.exists() else {}
        if kept.get("key") != key:
            # In a process of its own: tests start threads, and a process that has some is not fit to be forked.
            with tempfile.TemporaryDirectory() as folder:
                kept_in = self.kept or Path(folder, "reached.json")
                if os.fork() == 0:
                    status = 1
                    try:
                        reached.record(items.values())
                        found = {"key": key, "seconds": reached.seconds, "tests": reached.tests}
                        kept_in.write_text(json.dumps(found))
                        status = 0
                    finally:
                        os._exit(status)
                if os.wait()[1]:
                    raise UserError("recording which lines the tests reach failed")
                kept = json.loads(kept_in.read_text())
        reached.seconds = kept["seconds"]
        reached.tests = {file: {int(k): v for k, v in lines.items()} for file, lines in kept["tests"].items()}
        return reached

    def _judge(self, mutant: Mutant, tests: Sequence[pytest.Item], patience: float) -> str:
        """Run tests in a process of their own, with the mutant in place; wait ``patience`` seconds for it."""
        child = os.fork()
        if child == 0:
            status = 2
            try:
                status = self._run(mutant, tests)
            finally:
                os._exit(status)
        deadline = time.monotonic() + patience
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return {0: "survived"}.get(os.waitstatus_to_exitcode(status), "killed")
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return "timed out"
            time.sleep(0.005)

    def _run(self, mutant: Mutant, tests: Sequence[pytest.Item]) -> int:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        source = self.sources[mutant.file]
        put_in_place(source.changed(mutant.number), source.path)
        return 0 if all(map(passes, tests)) else 1


def parse_args(argv: Sequence[str] | None):
    """Read the command line."""
    parser = ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("files", nargs="+", help="sources to change, files or folders")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="what pytest is to run")
    parser.add_argument("-k", default="", help="choose among the tests, as pytest's option does")
    parser.add_argument("--always", nargs="+", default=["tests/assigners/test_signatures.py"],
                        help="tests of defaults and constants, which they read without running the code")  # fmt: skip
    parser.add_argument("--again", type=Path, help="change only what survived according to this result, see --json")
    parser.add_argument("--sample", type=int, help="change this many places, drawn at random, instead of all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20, help="of tests for each mutant, at most")
    parser.add_argument("--known", default="tests/mutants.json", help="survivors that are equal, with reasons")
    parser.add_argument("--reached", type=Path, help="keep here which tests reach which lines, for the next call")
    parser.add_argument("--json", type=Path, help="write the result here, too")
    return parser.parse_args(argv)


def sources_in(paths: Sequence[str]) -> list[Source]:
    """All Python files among files and folders."""
    root = Path.cwd()
    found = [file for path in paths for file in (sorted(Path(path).rglob("*.py")) if Path(path).is_dir() else [path])]
    try:
        return [Source(root, str(Path(file))) for file in found]
    except (OSError, SyntaxError) as error:
        raise UserError(f"can't read the sources: {error}") from error


def reasons(known: str) -> dict[tuple[str, str, str], str]:
    """Why mutants are equal to the sources, by file, line as it stands there, and change ("*": any)."""
    path = Path(known)
    entries = json.loads(path.read_text()) if path.exists() else []
    return {(entry["file"], entry["line"], change): entry["why"] for entry in entries for change in entry["changes"]}


def reason_for(mutant: Mutant, line: str, known: Mapping[tuple[str, str, str], str]) -> str | None:
    """Why a mutant of a line is equal to the source, None where nobody says so."""
    return known.get((mutant.file, line, mutant.text)) or known.get((mutant.file, line, "*"))


def report(plugin: Mutation, known: dict[tuple[str, str, str], str], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Print a table by file; returns it, and the survivors.

    Args:
        plugin: has judged the mutants.
        known: reasons, see `reasons`.
        earlier: a result in which these mutants survived, empty for none.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for file, verdicts in earlier.get("counts", {}).items():
        counts[file].update({verdict: number for verdict, number in verdicts.items() if verdict in KILLED})
    survivors = []
    for mutant, verdict in plugin.verdicts.items():
        if verdict in ALIVE:
            line = plugin.sources[mutant.file].lines[mutant.lines[0] - 1].strip()
            why = reason_for(mutant, line, known)
            verdict = "equal" if why else verdict
            entry = {"file": mutant.file, "number": mutant.number, "at": mutant.lines[0], "line": line}
            survivors.append({**entry, "change": mutant.text, "why": why, "verdict": verdict})
        counts[mutant.file][verdict] += 1
    print(
        "| file | mutants | killed | equal, see `tests/mutants.json` | survived | share killed |\n" + "| --- " * 6 + "|"
    )
    total: Counter[str] = Counter()
    for file, of in [*sorted(counts.items()), ("all", total)]:
        total += of if file != "all" else Counter()
        killed, number = sum(of[verdict] for verdict in KILLED), sum(of.values())
        alive = sum(of[verdict] for verdict in ALIVE)
        print(f"| {file} | {number} | {killed} | {of['equal']} | {alive} | {killed / max(number, 1):.1%} |")
    return {"counts": counts, "survivors": survivors}


def main(argv: Sequence[str] | None = None) -> int:
    """Make the mutants, run the tests on each, and print what came of them."""
    with user_errors():
        args = parse_args(argv)
        sources = sources_in(args.files)
        mutants = [mutant for source in sources for mutant in source.mutants]
        earlier = json.loads(args.again.read_text()) if args.again else {}
        if args.again:
            alive = {(entry["file"], entry["number"], entry["change"]) for entry in earlier["survivors"]}
            mutants = [mutant for mutant in mutants if (mutant.file, mutant.number, mutant.text) in alive]
            lost = len(alive) - len(mutants)
            if lost:
                raise UserError(f"{args.again} is of other sources: {lost} changes are not there")
        if args.sample is not None:
            mutants = random.Random(args.seed).sample(mutants, min(args.sample, len(mutants)))
        known, texts = reasons(args.known), {source.file: source.lines for source in sources}
        # Those that are known to be equal were tried when they first survived.
        equal = [
            mutant
            for mutant in mutants
            if args.again and reason_for(mutant, texts[mutant.file][mutant.lines[0] - 1].strip(), known)
        ]
        plugin = Mutation(sources, mutants, args.seconds, args.reached, args.always, equal)
        options = ["-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", args.k]
        os.environ.setdefault("HYPOTHESIS_PROFILE", "quick")  # as tools/test.sh does without --all
        status = pytest.main([*options, *args.tests], plugins=[plugin])
        if len(plugin.verdicts) < len(mutants):
            raise UserError(f"the tests could not be run (pytest says {status!r})")
        result = report(plugin, known, earlier)
        if args.json:
            args.json.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
