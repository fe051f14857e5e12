"""The pages: links, pictures, anchors, lengths, and what they say to run: code, configs, commands and their options.

Fenced ``python`` blocks are of three kinds.  A whole config (it has ``_base_`` or ``read_base``) is loaded, and its
assigners are built.  A few settings (assignments to names of configs alone) are read, and theirs are built.  Any other
block runs, the blocks of a page in one namespace: a comment behind ``print`` is what it prints, and a ``text`` block
right behind a ``python`` block is all that this prints.  CONTRIBUTING.md is tried as it says: in a copy of the package,
by the contract tests.
"""

import ast
import contextlib
import importlib.util
import inspect
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DefaultScope

import visdet_assigners
from detectors import batch, build_detector
from pages import FOLDERS, PAGES, Block, anchors, blocks, commands, links, options_of, prose, tool_of, variables
from toolbox import ROOT, load_tool
from visdet_assigners import command_line, dropped
from visdet_assigners.registry import HOOKS, TASK_UTILS, typed_nodes

SETTINGS = {"assigner", "custom_hooks", "custom_imports", "model", "train_cfg"}
"""Names that a few settings of a config assign."""

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


# ------------------------------------------------------------------------------------------------- links and lengths


@every_page
def test_links_lead_somewhere(page):
    lost = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or not file.is_relative_to(ROOT) or (anchor and anchor not in anchors(file)):
            lost.append(target)
    assert not lost


def test_some_links_are_found():
    assert sum(len(links(page)) for page in PAGES) > 200
    assert "configs/atss/assignments.png" in links(ROOT / "README.md")
    assert {"names-and-style", "the-class"} <= anchors(ROOT / "CONTRIBUTING.md")


@every_page
def test_pages_are_short_or_have_a_table_of_contents(page):
    text = page.read_text(encoding="utf-8")
    contents = re.search(r"^Contents: (.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    if text.count("\n") > 200:
        assert contents
    if contents:
        assert len(re.findall(r"\(#[\w-]+\)", contents[1])) >= 3
        assert text[: contents.start()].count("\n") < 10


def test_readme_is_a_front_page():
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") <= 150


@every_page
def test_pages_begin_with_what_their_reader_can_do(page):
    if page.name == "README.md" and page.parent.parent == ROOT / "configs":
        return  # families: the paper first, then what is decided
    if page != ROOT / "README.md":
        assert re.match(r"# .*\n\nWith this page you ", page.read_text(encoding="utf-8"))


# -------------------------------------------------------------------------------------------------------------- code


def is_config(tree: ast.Module) -> bool:
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return bool(names & {"_base_", "read_base"})


def is_settings(tree: ast.Module) -> bool:
    return all(
        isinstance(node, ast.Assign)
        and all(isinstance(name, ast.Name) and name.id in SETTINGS for name in node.targets)
        for node in tree.body
    )


def build_what_is_ours(cfg: Config) -> int:
    """Build the assigners and hooks of ours that a config names, and look for the modules that it imports."""
    built = 0
    with DefaultScope.overwrite_default_scope("mmdet"):
        for _, node in typed_nodes(cfg.to_dict(), "cfg"):
            kind = node["type"]
            name = kind if isinstance(kind, str) else f"visdet_assigners.{kind.__name__}"
            if name.startswith("visdet_assigners.") and name.endswith(("Assigner", "Hook")):
                (TASK_UTILS if name.endswith("Assigner") else HOOKS).build(dict(node))
                built += 1
    for module in cfg.get("custom_imports", {}).get("imports", []):
        assert importlib.util.find_spec(module)
        built += 1
    return built


def model_and_data() -> dict:
    inputs, samples = batch([[[8.0, 8.0, 60.0, 70.0]], [[30.0, 20.0, 90.0, 80.0]]])
    model = build_detector("retinanet/retinanet_r50_fpn_1x_coco.py")
    return dict(model=model, inputs=inputs, data_samples=samples)


def config_of_shapes() -> dict:
    folder = os.environ["VISDET_SHAPES"]
    load_tool("make_shapes").main([folder, "--train", "2", "--val", "2"])
    return dict(cfg=Config.fromfile(ROOT / "configs" / "atss" / "atss_r18_fpn_12e_shapes.py"))


GIVEN = {"tools/assignments.md": model_and_data, "visdet_assigners/training/README.md": config_of_shapes}
"""What the code of a page takes for granted."""


def run(page: Path, block: Block, namespace: dict) -> str:
    """Run a block; what it prints must be as the comments behind say."""
    lines, printed = page.read_text(encoding="utf-8").split("\n"), []

    def show(*values):
        text = " ".join(map(str, values))
        printed.append(text)
        line = lines[sys._getframe(1).f_lineno - 1]
        _, mark, expected = line.partition(")  # ")
        assert not mark or text == expected, f"{line} printed {text}"

    namespace["print"] = show
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile("\n" * block.offset + block.text, str(page), "exec"), namespace)
    return "\n".join(printed)


PAGES_WITH_CODE = [
    page for page in PAGES if page.stem != "CONTRIBUTING" and any(block.language == "python" for block in blocks(page))
]


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.setenv("VISDET_SHAPES", str(tmp_path / "shapes"))
    monkeypatch.setattr(dropped, "_dropped", {})  # what other tests replaced
    given = GIVEN.get(page.relative_to(ROOT).as_posix())
    namespace = given() if given else {}
    found = blocks(page)
    for number, block in enumerate(found):
        if block.language != "python":
            continue
        tree = ast.parse(block.text)
        if is_config(tree):
            base = tmp_path / "retinanet_r50_fpn_1x_coco.py"
            base.write_text(get_config(f"mmdet::retinanet/{base.name}").pretty_text)
            file = tmp_path / f"config_{number}.py"
            file.write_text(block.text)
            assert build_what_is_ours(Config.fromfile(file))
        elif is_settings(tree):
            assert build_what_is_ours(Config.fromstring(block.text, ".py"))
        else:
            printed = run(page, block, namespace)
            after = found[number + 1] if number + 1 < len(found) else None
            if after and after.language == "text" and after.offset == block.offset + block.text.count("\n") + 3:
                assert printed == after.text.rstrip("\n")


@pytest.mark.slow(reason="runs the contract in a copy")
def test_contributing_makes_an_assigner(tmp_path):
    """The file, the line and the case that CONTRIBUTING.md shows, in a copy of the package: the contract holds."""
    page = ROOT / "CONTRIBUTING.md"
    file, case = (block.text for block in blocks(page) if block.language == "python")
    (name,) = re.findall(r"^class (\w+)\(DenseAssigner\)", file, re.MULTILINE)
    assert len(file.split("\n")) < 60
    path = re.search(r"`visdet_assigners/assigners/(\w+)\.py`", page.read_text(encoding="utf-8"))[1]
    for folder in ("visdet_assigners", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", ".mim"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assigners = tmp_path / "visdet_assigners" / "assigners"
    (assigners / f"{path}.py").write_text(file)
    with (assigners / "__init__.py").open("a") as init:
        init.write(f'\nfrom visdet_assigners.assigners.{path} import {name}\n\n__all__ += ["{name}"]\n')
    cases = tmp_path / "tests" / "assigners" / "cases.py"
    start = "CASES: dict[str, Case] = {\n"
    assert start in cases.read_text()
    cases.write_text(cases.read_text().replace(start, start + case))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/assigners/test_contract.py", "-q", "-p", "no:cacheprovider"]
        + ["-k", f"{name} or every_registered"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 40


def test_the_table_of_functions_is_theirs():
    page = ROOT / "visdet_assigners" / "README.md"
    shown = dict(re.findall(r"^\| `((?!set_)\w+)\((.*?)\)` \|", prose(page), re.MULTILINE))
    functions = {
        name: value
        for name in visdet_assigners.__all__
        if inspect.isfunction(value := getattr(visdet_assigners, name)) and not name.startswith(("set_", "replaced_"))
    }
    assert shown.keys() == functions.keys()
    for name, function in functions.items():
        given = ast.parse(f"def shown({shown[name]}): ...").body[0].args
        parameters = inspect.signature(function).parameters
        assert [argument.arg for argument in given.args] == list(parameters), name
        with_default = list(parameters.values())[len(parameters) - len(given.defaults) :]
        assert all(one.default is inspect.Parameter.empty for one in parameters.values() if one not in with_default)
        for one, default in zip(with_default, given.defaults):
            if one.name in ("measure", "overlaps", "overlaps_at", "geometry", "prior_geometry"):
                continue  # objects, by their names
            assert eval(ast.unparse(default), {"inf": float("inf")}) == one.default, (name, one.name)


def test_all_that_is_public_is_on_its_page():
    text = (ROOT / "visdet_assigners" / "README.md").read_text(encoding="utf-8")
    public = set(visdet_assigners.__all__) - {"__version__"}
    assert {name for name in public if not re.search(rf"\b{name}\b", text)} == set()


# ---------------------------------------------------------------------------------------------------------- commands


@every_page
def test_commands_and_their_options_exist(page):
    wrong = []
    for words in commands(page):
        found = tool_of(words)
        if found is None:
            continue
        tool, rest = found
        if not (ROOT / "tools" / tool).is_file() and tool not in command_line.modules() and not tool.isupper():
            wrong.append(tool)
            continue
        given = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
        if given and not tool.endswith(".sh"):
            wrong += [f"{tool} {option}" for option in sorted(given - options_of(tool))]
    assert not wrong


def test_some_commands_are_found():
    found = [found for page in PAGES for words in commands(page) if (found := tool_of(words))]
    assert len(found) > 100
    assert "--to" in options_of("compare_assigners.py")
    assert "--to" in options_of("compare")
    assert "--nonsense" not in options_of("compare")


@every_page
def test_paths_in_commands_exist(page):
    lost = []
    for words in commands(page):
        for word in words if len(words) > 1 else ():
            path = word.split("::")[0]
            ours = path.startswith(tuple(f"{folder}/" for folder in FOLDERS))
            if ours and not re.search(r"\$|CONFIG|NAME|[{…]", path) and not any(ROOT.glob(path)):
                lost.append(path)
    assert not lost


@every_page
def test_environment_variables_are_read_somewhere(page):
    named = set(re.findall(r"\bVISDET_[A-Z_]+[A-Z]\b", page.read_text(encoding="utf-8")))
    assert named <= variables()


def test_every_tool_is_in_the_table():
    text = (ROOT / "tools" / "README.md").read_text(encoding="utf-8")
    tools = {file.name for pattern in ("*.py", "*.sh") for file in (ROOT / "tools").glob(pattern)}
    assert {name for name in tools if f"`{name}" not in text} == set()
    shown = {}
    for scripts, names in re.findall(r"^\|( `\w+\.(?:py|sh).*?)\|(.*?)\|", text, re.MULTILINE):
        named = re.findall(r"`([\w-]+)`", names)
        shown.update(zip(re.findall(r"`(\w+\.py)", scripts), named) if named else {})
    doors = {}
    for name, module in command_line.modules().items():
        for tool in (ROOT / "tools").glob("*.py"):
            if f"from visdet_assigners.commands.{module} import main" in tool.read_text(encoding="utf-8"):
                doors[tool.name] = name
    assert shown == doors


# ----------------------------------------------------------------------------------------------------------- numbers


def test_totals_of_bad_input_are_those_of_its_page():
    text = (ROOT / "tests" / "reliability" / "README.md").read_text(encoding="utf-8")
    kinds = re.search(r"What becomes of (\d+) kinds", text)[1]
    rows = dict(re.findall(r"^\| (this package|mmdet) \| (.*) \|$", text, re.MULTILINE))
    rows = {name: row.split(" | ") for name, row in rows.items()}
    cells, right, error, kept, crash, wrong, memory = rows["this package"]
    assert (crash, wrong, memory) == ("0", "0", "0")
    page = prose(ROOT / "tests" / "README.md")
    assert f"each of {kinds} kinds" in page
    assert f"| ours | {right} | {kept} | {error} | 0 | 0 | 0 |" in page
    of_mmdet = rows["mmdet"]
    assert f"| mmdet 3.5.1 | {of_mmdet[1]} | | {of_mmdet[2]} | {' | '.join(of_mmdet[4:])} |" in page
    front = prose(ROOT / "README.md").replace("\n ", "")
    crash, wrong, memory = of_mmdet[4:]
    assert re.search(rf"\[{cells} cases\].* in {crash}, .* in {wrong}, .* in {memory};", front)


def test_numbers_of_the_front_page_are_those_of_the_pages_behind():
    front, speed, results = (prose(ROOT / name) for name in ("README.md", "tools/performance.md", "configs/README.md"))
    scenes = re.findall(r"^\| (\w+), ([\d,]+)(?: \(\w+\))? \| ([\d. /]+) \| ([\d,]+ → \d+) \|$", front, re.MULTILINE)
    assert len(scenes) == 5
    for assigner, priors, times, memory in scenes:
        row = next(row for row in speed.split("\n") if re.search(rf", {assigner} \| {priors} \|", row))
        assert f"| {times} |" in row
        assert f"| {memory} |" in row
    row = r"^\| ([\w -]+?)(?:, ResNet-18|-nano)? \| .* \| (\d+) \| (\d+) \| (\.\d+) \| (\.\d+) \|$"
    trained = re.findall(row, front, re.MULTILINE)
    assert len(trained) == 5
    for detector, *numbers in trained:
        row = next(row for row in results.split("\n") if row.startswith(f"| {detector} | `python"))
        assert row.endswith("| {} | {} | 0{} | 0{} |".format(*numbers))
