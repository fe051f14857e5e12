"""The command ``benchmark``; `visdet_assigners.commands.parsers` says what it does."""

from __future__ import annotations

import json
import platform
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mmdet
import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from rich.console import Console
from rich.progress import track
from rich.table import Table

from visdet_assigners.assigners.calling import to_device
from visdet_assigners.commands import parsers
from visdet_assigners.commands.config import read_config
from visdet_assigners.commands.errors import INTERRUPTED, UntilInterrupted, user_errors
from visdet_assigners.errors import UserError, check_file
from visdet_assigners.observe.detector import init_weights
from visdet_assigners.registry import REGISTERED, scope_and_name, typed_nodes
from visdet_assigners.testing.benchmarks import SCENES, Scene, drawn, scene_for
from visdet_assigners.testing.measure import OperatorCounter, Timing, peak_memory, time_interleaved
from visdet_assigners.testing.scenes import Objects, coco_objects
from visdet_assigners.training.config_assigners import apply_assigners, assigner_nodes

GROWTH = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)
MMDET_PAIRS = 10**8
"""Pairs of priors and objects up to which mmdet's assigner is run for the curves of growth."""


@dataclass(frozen=True)
class Cost:
    """What one call takes: operators, waits for a device, MB at the peak, and time."""

    operators: int
    waits: int
    megabytes: float
    time: Timing


@dataclass(frozen=True)
class Row:
    """Both sides of one scene and number of objects; ``mmdet`` is None where only ours was run."""

    scene: str
    assigner: str
    priors: int
    objects: int
    ours: Cost
    mmdet: Cost | None = None
    speedup: float | None = None
    target: float | None = None


# --------------------------------------------------------------------------------------------------------- measuring


def build_both(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """Ours and mmdet's of one config."""
    kind = scope_and_name(config["type"])[1]
    options = {key: value for key, value in config.items() if key != "type"}
    with DefaultScope.overwrite_default_scope("mmdet"):
        return REGISTERED[kind](**options), TASK_UTILS.build({**config, "type": f"mmdet.{kind}"})


def count(call: Any) -> OperatorCounter:
    """Count the operators of a call on the way that a device takes."""
    with patch.dict("os.environ", VISDET_ASSIGNERS_DEVICE_PATH="1"), OperatorCounter() as counter:
        call()
    return counter


def measure(scene: Scene, objects: Objects, device: torch.device, rounds: int, with_mmdet: bool = True) -> Row:
    """Run one scene on both sides.

    Raises:
        RuntimeError: they decide differently.
    """
    mine, theirs = build_both(scene.config)
    arguments = to_device(scene.call(objects), device)
    calls = [lambda: mine.assign(*arguments)] + [lambda: theirs.assign(*arguments)] * with_mmdet
    results = [call() for call in calls]
    if with_mmdet and not torch.equal(results[0].gt_inds, results[1].gt_inds):
        raise RuntimeError(f"{scene.name}, {len(objects.boxes)} objects: ours and mmdet's assigner decide differently")
    counters = [count(call) for call in calls]
    memory = [peak_memory(call, device) for call in calls]
    times = time_interleaved(calls, rounds, warm_up=0)  # all ran three times by now
    costs = [
        Cost(counter.total, counter.waits.total(), megabytes / 2**20, timing)
        for counter, megabytes, timing in zip(counters, memory, times)
    ]
    target = dict(zip((7, 50, 300), scene.speedups)).get(len(objects.boxes))
    common = (scene.name, str(scene.config["type"]), len(results[0].gt_inds), len(objects.boxes))
    if not with_mmdet:
        return Row(*common, costs[0])
    return Row(*common, costs[0], costs[1], times[1].median / times[0].median, target)


def measure_iteration(name: str, objects: Objects, device: torch.device, rounds: int) -> str:
    """Time training iterations of one detector with mmdet's assigners and with ours, in turns, on a random image.

    Args:
        name: of the config, with ``mmdet::`` in front for one of mmdet's.
        objects: the ground truths of the image.
        device: to train on.
        rounds: iterations of each.

    Returns:
        The result in one line.

    Raises:
        RuntimeError: the losses differ.
    """
    height, width = (-(-side // 32) * 32 for side in objects.image)
    image = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0)).to(device)
    sample = DetDataSample(gt_instances=objects.instances, ignored_instances=objects.ignore)
    shape = (height, width)
    sample.set_metainfo(
        dict(img_shape=objects.image, pad_shape=shape, batch_input_shape=shape, scale_factor=(1.0, 1.0))
    )
    steps, losses = [], []
    for which in ("mmdet", "visdet"):
        cfg = read_config(name)
        apply_assigners(cfg, which)
        for _, node in typed_nodes(cfg.model, "model"):
            node.pop("init_cfg", None)  # no pretrained weights: they cost no time
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope("mmdet"):
            model = MODELS.build(cfg.model)
            init_weights(model)
            model.to(device).train()

        def step(model: Any = model) -> Any:
            loss, _ = model.parse_losses(model.loss(image, [sample.to(device)]))
            loss.backward()
            return loss

        losses.append(step().item())
        steps.append(step)
    if losses[0] != losses[1]:
        raise RuntimeError(f"{name}: the loss is {losses[0]} with mmdet's assigners and {losses[1]} with ours")
    apply_assigners(Config(), "mmdet")  # mmdet gets its names back
    theirs, mine = time_interleaved(steps, rounds)
    return (
        f"{name}, {len(objects.boxes)} objects: {theirs.median * 1000:.0f} → {mine.median * 1000:.0f} ms an iteration "
        f"(± {theirs.spread:.0%}, {mine.spread:.0%}), {theirs.median / mine.median:.2f} times faster; the same loss"
    )


def machine(device: torch.device) -> str:
    """What it ran on."""
    from visdet_assigners import __version__

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    where = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{model}, {torch.get_num_threads()} thread"
    )
    versions = f"torch {torch.__version__}, mmdet {mmdet.__version__}, visdet_assigners {__version__}"
    return f"{where}; {platform.system()}; {versions}"


# ----------------------------------------------------------------------------------------------------------- choosing


def chosen_scenes(args: Any) -> list[Scene]:
    """The scenes that the command line asks for."""
    if not args.config:
        return [SCENES[name] for name in args.scenes or SCENES]
    scenes = {}
    for path, config in assigner_nodes(read_config(args.config)):
        try:
            scenes[repr(config)] = scene_for(path, config)
        except KeyError as error:
            raise UserError(f"{path} is a {error.args[0]}, for which there is no scene") from error
    if not scenes:
        raise UserError(f"{args.config} names no assigner in its model")
    return list(scenes.values())


def chosen_objects(args: Any, scene: Scene) -> list[Objects]:
    """Drawn objects, or those of real images, brought to the size of the scene's."""
    if not args.real:
        return [drawn(number, scene.image) for number in args.objects]
    found = []
    for objects in coco_objects(args.real, args.images, longest=max(scene.image)):
        if len(objects.boxes):
            scale = torch.tensor([scene.image[1] / objects.image[1], scene.image[0] / objects.image[0]]).repeat(2)
            found.append(Objects(objects.name, objects.boxes * scale, objects.labels % 80, objects.crowds, scene.image))
    return found


# ------------------------------------------------------------------------------------------------------------ showing


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the table: each figure of mmdet's beside ours."""
    table = Table("scene", "assigner", "N", "M", "operators", "waits", "MB", "ms", "± %", "times faster", "target")
    for row in rows:
        sides = [row.mmdet, row.ours] if row.mmdet else [row.ours]
        figures = [
            " → ".join(format(value, style) for value in values)
            for style, values in (
                ("d", [side.operators for side in sides]),
                ("d", [side.waits for side in sides]),
                (".0f", [side.megabytes for side in sides]),
                (".1f", [side.time.median * 1000 for side in sides]),
                (".0f", [side.time.spread * 100 for side in sides]),
            )
        ]
        faster = "" if row.speedup is None else f"{row.speedup:.1f}"
        target = (
            "" if row.target is None else f"{row.target:g}" + ("" if (row.speedup or 0) >= row.target else " missed")
        )
        table.add_row(row.scene, row.assigner.removesuffix("Assigner"), f"{row.priors:,}", str(row.objects), *figures,
                      faster, target)  # fmt: skip
    console.print(table)


def draw_growth(rows: Sequence[Row], path: str, title: str) -> None:
    """Draw time and memory against the number of objects."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name in dict.fromkeys(row.scene for row in rows):
        for side, style in (("mmdet", "--"), ("ours", "-")):
            own = [(row.objects, getattr(row, side)) for row in rows if row.scene == name and getattr(row, side)]
            counts = [number for number, _ in own]
            label = f"{name}, {side}"
            axes[0].loglog(counts, [cost.time.median for _, cost in own], style, marker=".", label=label)
            axes[1].loglog(counts, [max(1.0, cost.megabytes) for _, cost in own], style, marker=".", label=label)
    for axis, label in zip(axes, ("seconds", "MB at the peak (at least 1)")):
        axis.set(xlabel="objects in the image", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.suptitle(title, fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)


# --------------------------------------------------------------------------------------------------------------- main


def parse_args(argv: Sequence[str] | None) -> Any:
    """Read the command line."""
    parser = parsers.benchmark()
    args = parser.parse_args(argv)
    for name in args.scenes or ():
        if name not in SCENES:
            parser.error(f"--scenes: there is no {name}; choose from {', '.join(SCENES)}")
    for name in ("images", "rounds", "threads", *(() if args.real else ("objects",))):
        values = getattr(args, name)
        if min(values if isinstance(values, list) else [values]) < 1:
            parser.error(f"--{name} must be at least 1")
    if args.config and args.scenes:
        parser.error("--config and --scenes exclude each other")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Measure as the command line says."""
    console = Console(width=150) if not sys.stdout.isatty() else Console()
    with user_errors():
        args = parse_args(argv)
        torch.set_num_threads(args.threads)
        device = torch.device(args.device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: torch finds no GPU; leave the option out")
        if args.real:
            check_file(args.real, "annotation file", "give --real a file in COCO's format")
        if args.iteration:
            line = measure_iteration(args.iteration, drawn(max(args.objects), (800, 1333)), device, args.rounds)
            console.print(f"{machine(device)}\n{line}", soft_wrap=True)
            return 0
        scenes = chosen_scenes(args)
        if args.growth:
            jobs = [(scene, drawn(number, scene.image)) for scene in scenes for number in GROWTH]
        else:
            jobs = [(scene, objects) for scene in scenes for objects in chosen_objects(args, scene)]
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and mmdet, to their own authors
        measured = UntilInterrupted(track(jobs, "measuring", console=Console(stderr=True), transient=True))
        for scene, objects in measured:
            few = not args.growth or len(objects.boxes) * 300_000 <= MMDET_PAIRS
            rows.append(measure(scene, objects, device, args.rounds, with_mmdet=few))
    console.print(machine(device))
    console.print("mmdet's → ours; operators and waits on the way that a device takes")
    show(rows, console)
    if args.json:
        Path(args.json).write_text(
            json.dumps({"machine": machine(device), "rows": [asdict(row) for row in rows]}, indent=1)
        )
    if args.growth:
        draw_growth(rows, args.growth, machine(device))
    if measured.interrupted:
        print(f"interrupted after {measured.done} of {len(jobs)}", file=sys.stderr)
    return INTERRUPTED if measured.interrupted else 0
