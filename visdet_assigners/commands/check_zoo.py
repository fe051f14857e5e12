"""The command ``check-zoo``; `visdet_assigners.commands.parsers` says what it does."""

from __future__ import annotations

import copy
import json
import logging
import shlex
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mmdet
import torch
from mmdet.registry import TASK_UTILS as MMDET
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from visdet_assigners import dropin
from visdet_assigners.commands import parsers
from visdet_assigners.commands.errors import INTERRUPTED, UntilInterrupted, user_errors
from visdet_assigners.errors import UserError, check_file
from visdet_assigners.registry import is_ours, scope_and_name, typed_nodes
from visdet_assigners.testing.feeds import feeds
from visdet_assigners.testing.packages import configs_of, load_package, turned_feeds
from visdet_assigners.testing.scenes import Objects, coco_objects, drawn_objects

CONFIGS = Path(mmdet.__file__).parent / ".mim" / "configs"
# Assigners that heads name in their code: for the type of the head, what its config makes of them.
IN_CODE = {
    "DDQDETRHead": lambda head: {"type": "TopkHungarianAssigner", "topk": head.get("aux_num_pos", 4)},
}
# ``max_overlaps`` is mmdet's everywhere, not only at positives.
SAME_EVERYWHERE = (
    "MaxIoUAssigner", "ApproxMaxIoUAssigner", "GridAssigner", "MultiInstanceAssigner", "TopkHungarianAssigner"
)  # fmt: skip
# Assigners of other packages that one of ours decides as.
STAND_INS = {"RotatedATSSAssigner": "ATSSAssigner"}
EXTRAS = ("assign_metrics", "pos_idx", "pos_predicted_boxes", "target_boxes", "shadowed_labels")


class DifferenceError(Exception):
    """An assigner that is not ours, or that decides otherwise than mmdet's."""


class NotBuiltError(Exception):
    """An assigner that can't be built without ours."""


# ---------------------------------------------------------------------------------------------------------- configs


def find_configs(folder: Path, only: Sequence[str], every: int) -> list[Path]:
    """Choose the configs below ``folder``, leaving out the parts that lie in folders called ``_base_``.

    Raises:
        UserError: there are none, or none of a name in ``only``.
    """
    configs = [path for path in sorted(folder.rglob("*.py")) if "_base_" not in path.parts]
    if not configs:
        raise UserError(f"there are no configs in {folder}; check --configs")
    if not only:
        return configs[::every]
    for name in only:
        if not any(path.relative_to(folder).match(name) for path in configs):
            raise UserError(f"--only {name}: no config in {folder} is called so; FAMILY/CONFIG.py or a pattern, "
                                "such as 'tood/*', is needed")  # fmt: skip
    return [path for path in configs if any(path.relative_to(folder).match(name) for name in only)]


def assigner_nodes(cfg: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield path and dictionary of every assigner in a config, also of those that heads name in their code."""
    for path, node in typed_nodes(cfg.to_dict(), ""):
        _, name = scope_and_name(node["type"])
        if name.endswith("Assigner"):
            yield path.removeprefix("."), dict(node)
        elif name in IN_CODE:
            yield f"{path.removeprefix('.')} (in its code)", IN_CODE[name](node)


# ------------------------------------------------------------------------------------------------------- comparison


@contextmanager
def mmdet_alone() -> Iterator[None]:
    """Give mmdet its own classes back for a while."""
    dropin.restore()
    try:
        yield
    finally:
        dropin.enable()


def build(node: Mapping[str, Any], scope: str = "mmdet") -> Any:
    """Build an assigner as mmdet's heads do, in the scope of the package whose config it is."""
    with DefaultScope.overwrite_default_scope(scope):
        return MMDET.build(copy.deepcopy(dict(node)))


def parts(assigner: Any) -> Iterator[Any]:
    """The assigner itself, its match costs and its IoU calculator."""
    yield assigner
    for value in vars(assigner).values():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if type(item).__module__.startswith(("mmdet.", "visdet_assigners.")):
                yield item


def compare(node: Mapping[str, Any], scenes: Sequence[Objects], scope: str = "mmdet") -> Counter[str]:
    """Build an assigner from mmdet and from the drop-in and give both the same scenes.

    Args:
        node: of the config.
        scenes: drawn or real.
        scope: the package whose config it is; scenes are turned into the boxes of packages other than mmdet.

    Returns:
        How many calls of ``assign`` were compared, and how many matches there were in them.

    Raises:
        DifferenceError: the drop-in gives a class that isn't ours, or the two differ in a scene.
        NotBuiltError: another package's config names an assigner that mmdet doesn't find.
    """
    kind = scope_and_name(node["type"])[1]
    with mmdet_alone():
        reference = build(node, scope)
    mine = build({**node, "type": STAND_INS.get(kind, node["type"])}, scope)
    for part in parts(mine):
        if not is_ours(type(part)):
            raise DifferenceError(f"with the drop-in on, {type(part).__name__} is of {type(part).__module__}")
    if any(is_ours(type(part)) for part in parts(reference)):
        if scope != "mmdet":
            raise NotBuiltError(f"without ours, {node['type']} is not found; mmdet.{kind} is meant")
        raise DifferenceError("with the drop-in off, a part is ours: nothing to compare with")
    name = type(mine).__name__
    done: Counter[str] = Counter()
    for objects in scenes:
        calls = (
            feeds(node, objects) if scope == "mmdet" else turned_feeds(node, reference.iou_calculator, objects)
            for _ in range(2)
        )
        for expected_arguments, arguments in zip(*calls):
            results = []
            for assigner, given in ((reference, expected_arguments), (mine, arguments)):
                torch.manual_seed(0)  # some settings of MaxIoU shift repeated objects at random
                results.append(assigner.assign(*given))
            difference = first_difference(name, *results)
            if difference:
                raise DifferenceError(f"scene {objects.name}: {difference}")
            # MultiInstance's gt_inds count from 0; its labels say where something is matched
            matched = results[0].labels if name == "MultiInstanceAssigner" else results[0].gt_inds
            done.update(calls=1, matches=int((matched > 0).sum()))
    if not done["matches"]:
        raise DifferenceError("nothing is matched in any scene, so nothing was compared; raise --drawn or --images")
    return done


def first_difference(name: str, expected: Any, result: Any) -> str:
    """Say what first differs between the results of mmdet's assigner ``name`` and of ours, or nothing."""
    if expected.num_gts != result.num_gts:
        return f"num_gts is {expected.num_gts} with mmdet's, {result.num_gts} with ours"
    positive = expected.gt_inds > 0
    fields: dict[str, torch.Tensor | None] = dict.fromkeys(("gt_inds", "labels", *EXTRAS))  # None: everywhere
    if name == "RegionAssigner":
        fields["labels"] = positive  # mmdet's are 0 where nothing is matched, ours -1
    if name != "UniformAssigner":  # mmdet's are those of the ground truths, ours those of the priors
        fields["max_overlaps"] = None if name in SAME_EVERYWHERE else positive
    for key, where in fields.items():
        a, b = (_read(outcome, key) for outcome in (expected, result))
        if a is None or b is None:
            if a is not b:
                return f"{key} is {_kind(a)} with mmdet's, {_kind(b)} with ours"
        elif a.shape != b.shape:
            return f"{key} has shape {tuple(a.shape)} with mmdet's, {tuple(b.shape)} with ours"
        else:
            unequal = (a != b) if where is None else (a != b) & where
            if unequal.any():
                index = unequal.nonzero()[0].tolist()
                return (f"{key} differ at {int(unequal.sum())} of {unequal.numel()}, first at {index}: "
                        f"{a[tuple(index)]} with mmdet's, {b[tuple(index)]} with ours")  # fmt: skip
    return ""


def _read(result: Any, key: str) -> Any:
    return getattr(result, key) if hasattr(result, key) else result.get_extra_property(key)


def _kind(value: Any) -> str:
    return "None" if value is None else "a tensor"


# ------------------------------------------------------------------------------------------------------------- walk


@dataclass
class Report:
    """What the walk found.

    Attributes:
        settings: calls of ``assign`` and matches that were compared, by setting, the assigner as JSON.
        configs: number of configs by family and assigner.
        nodes: number of assigners in configs, by family and assigner.
        resolved: number of configs that mmengine resolves.
        without: configs that name no assigner.
        unresolved: reason by config.
        theirs: number of configs that name an assigner of another package's own, by its name.
        not_built: reason by config, where an assigner can't be built without ours.
    """

    settings: dict[str, Counter[str]] = field(default_factory=dict)
    configs: Counter[tuple[str, str]] = field(default_factory=Counter)
    nodes: Counter[tuple[str, str]] = field(default_factory=Counter)
    resolved: int = 0
    without: list[str] = field(default_factory=list)
    unresolved: dict[str, str] = field(default_factory=dict)
    theirs: Counter[str] = field(default_factory=Counter)
    not_built: dict[str, str] = field(default_factory=dict)


def check_config(path: Path, name: str, scenes: Sequence[Objects], report: Report, scope: str = "mmdet") -> None:
    """Compare the assigners of one config, those of settings that no config before had, and enter it in the report.

    Raises:
        DifferenceError: the first difference, with the place in the config.
    """
    try:  # whatever stops mmengine is the reason to tell
        cfg = Config.fromfile(path, import_custom_modules=False)
        nodes = list(assigner_nodes(cfg))
    except Exception as error:
        reason = str(error).replace(f"{path.parents[len(Path(name).parts) - 1]}/", "")
        report.unresolved[name] = f"{type(error).__name__}: {' '.join(reason.split())}"
        return
    report.resolved += 1
    family, seen = Path(name).parts[0], set()
    own = {scope_and_name(node["type"])[1] for _, node in nodes if is_of(node["type"], scope)}
    report.theirs.update(own)
    for where, node in nodes:
        if scope_and_name(node["type"])[1] in own:
            continue
        setting = json.dumps(node, sort_keys=True, default=str)
        if setting not in report.settings:
            try:
                report.settings[setting] = compare(node, scenes, scope)
            except NotBuiltError as error:
                report.not_built[name] = str(error)
                continue
            except Exception as error:
                kind = "" if isinstance(error, DifferenceError) else f"{type(error).__name__}: "
                raise DifferenceError(f"{name}, {where}\n  {setting}\n  {kind}{error}") from error
        key = (family, scope_and_name(node["type"])[1])
        report.nodes[key] += 1
        seen.add(key)
    report.configs.update(seen)
    if not nodes:
        report.without.append(name)


def is_of(kind: Any, scope: str) -> bool:
    """Whether an assigner is of a package's own, and none of ours decides as it does."""
    name = scope_and_name(kind)[1]
    home = MMDET.parent.children.get(scope)
    return scope != "mmdet" and name not in STAND_INS and home is not None and name in home.module_dict


def setting_name(setting: str) -> str:
    """The assigner's name in a setting written as JSON."""
    return scope_and_name(json.loads(setting)["type"])[1]


def print_report(report: Report, scenes: int, console: Console, package: str = "mmdet") -> None:
    """Print the tables of families and of assigners, what couldn't be resolved, and the sums."""
    table = Table("Family", "Assigner", title=f"{package}'s configs with visdet_assigners.dropin")
    for column in ("Configs", "Assigners", "Equal"):
        table.add_column(column, justify="right")
    last = None
    for family, name in sorted(report.configs):
        equal = report.nodes[family, name]  # the first that isn't has ended the walk
        table.add_row(family if family != last else "", name, str(report.configs[family, name]), *[str(equal)] * 2)
        last = family
    console.print(table)

    table = Table("Assigner", title="In all")
    for column in ("Families", "Configs", "Settings", "Calls", "Matches"):
        table.add_column(column, justify="right")
    for name in sorted({name for _, name in report.configs}):
        configs = [number for key, number in report.configs.items() if key[1] == name]
        settings = [done for key, done in report.settings.items() if setting_name(key) == name]
        calls, matches = (sum(done[what] for done in settings) for what in ("calls", "matches"))
        table.add_row(name, *map(str, (len(configs), sum(configs), len(settings), calls, matches)))
    console.print(table)

    for name, reason in sorted(report.unresolved.items()):
        tell(console, f"not resolved: {name}: {reason}")
    for name, reason in sorted(report.not_built.items()):
        tell(console, f"not built: {name}: {reason}")
    for name, number in sorted(report.theirs.items()):
        tell(console, f"{package}'s own, left alone: {name} in {number} configs")
    families = Counter(Path(name).parts[0] for name in report.without)
    if families:
        tell(console, "without assigners: " + ", ".join(f"{name} {number}" for name, number in families.items()))
    calls = sum(done["calls"] for done in report.settings.values())
    with_some = report.resolved - len(report.without)
    tell(
        console,
        f"{report.resolved + len(report.unresolved)} configs: {len(report.unresolved)} can't be resolved, "
        f"{len(report.without)} name no assigner, {with_some} name {sum(report.nodes.values())} assigners in "
        f"{len(report.settings)} settings. All are ours and equal to mmdet's, in {calls} calls on {scenes} scenes.",
    )


def tell(console: Console, text: str) -> None:
    """Print ``text`` as it is, on one line however long."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def load_scenes(args: Any) -> list[Objects]:
    """The drawn and the real scenes that the command line asks for."""
    drawn = drawn_objects()
    if not 0 <= args.drawn <= len(drawn):
        raise UserError(f"--drawn is {args.drawn}; there are {len(drawn)} scenes")
    for option in ("every", "images"):
        if getattr(args, option) < 1:
            raise UserError(f"--{option} is {getattr(args, option)}; at least 1 is needed")
    scenes = [drawn[index * len(drawn) // args.drawn] for index in range(args.drawn)]
    if args.real:
        check_file(args.real, "annotation file", "give --real a file in COCO's format")
        try:
            scenes += coco_objects(args.real, args.images)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{args.real} is no file in COCO's format: {type(error).__name__} {error}") from error
    if not scenes:
        raise UserError("there are no scenes; raise --drawn or give --real")
    return scenes


def main(argv: Sequence[str] | None = None) -> int:
    """Check as the command line says; 0 where everything is equal."""
    torch.set_num_threads(1)
    console = Console()
    with user_errors():
        args = parsers.check_zoo().parse_args(argv)
        package = load_package(args.package)
        args.configs = args.configs or configs_of(package)
        scenes = load_scenes(args)
        configs = find_configs(args.configs, args.only, args.every)
    MMLogger.get_current_instance().setLevel(logging.WARNING)  # the drop-in goes on and off for each setting
    dropin.enable()
    report = Report()
    with Progress(console=console, transient=True) as progress, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and mmdet, to their own authors
        task = progress.add_task("configs", total=len(configs))
        looked_at = UntilInterrupted(configs)
        for path in looked_at:
            name = path.relative_to(args.configs).as_posix()
            progress.update(task, description=f"{name[:48]:48}")
            try:
                check_config(path, name, scenes, report, args.package)
            except DifferenceError as error:
                progress.stop()
                tell(console, f"different: {error}\nto see it again: {shlex.join(again(args, name))}")
                return 1
            progress.advance(task)
    print_report(report, len(scenes), console, args.package)
    if looked_at.interrupted:
        tell(console, f"interrupted after {looked_at.done} of {len(configs)} configs")
    return INTERRUPTED if looked_at.interrupted else 0


def again(args: Any, name: str) -> list[str]:
    """The command that checks the config ``name`` alone, on the same scenes."""
    command = ["python", "tools/check_zoo.py", "--only", name, "--drawn", str(args.drawn)]
    if args.package != "mmdet":
        command += ["--package", args.package]
    elif args.configs != CONFIGS:
        command += ["--configs", str(args.configs)]
    if args.real:
        command += ["--real", args.real, "--images", str(args.images)]
    return command
