#!/usr/bin/env python
"""Walk mmdet's configs through `report` and `browse`: each works, or is refused in one line; no tracebacks.

    python tools/walk_zoo.py --data data/coco                      # one or two configs of each folder
    python tools/walk_zoo.py --data data/coco --only 'detr/*' --again
    python tools/walk_zoo.py --table                               # what is known so far

Of each folder of configs the smallest detector is taken, and a second one with other heads where there is one.  A few
pictures of a COCO data set are written in the layout that the config reads, and both commands run on them as a user
would run them, with random weights and small images, each in a process of its own with a limit of time and memory.
Results are written as they come, so that a walk that was interrupted goes on where it was.

A script in one file, hence the length.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mmdet
import torch
from mmengine.config import Config
from PIL import Image
from tqdm import tqdm

from visdet_assigners.commands import browse, report
from visdet_assigners.commands.errors import user_errors
from visdet_assigners.commands.options import ArgumentParser
from visdet_assigners.errors import UserError, check_file
from visdet_assigners.registry import scope_and_name, typed_nodes
from visdet_assigners.testing.layouts import Picture, load_pictures, write_dataset
from visdet_assigners.training.config_assigners import assigner_nodes

CONFIGS = Path(mmdet.__file__).parent / ".mim" / "configs"
SIZES = (
    (0, r"nano"), (1, r"tiny|mobilenetv2|400MF|w18"), (2, r"r18|pvt-t|[_-]s[_-]"), (3, r"r34|effb"),
    (5, r"r50|s50|swin-?t|convnext-t|res2net50"), (7, r"d53|[_-]m[_-]|swin-s"), (9, r"r101|s101|[_-]l[_-]|swin-?b"),
    (10, r"x101|[_-]x[_-]|swin-?l|hourglass"),
)  # fmt: skip
"""How large the detector of a config is, by parts of its name."""
LENGTHS = ("scale", "scales", "img_scale", "size", "crop_size", "border")
"""Options of transforms that are lengths in pixels."""
FIXED = 320
"""Images of at most so many pixels are left as they are: SSD takes no others."""
WORKS, REFUSED, TRACEBACK, WRONG = "works", "refused", "traceback", "wrong"
REASONS = (
    ("no assigner", r"has no assigner|never called"),
    ("a package is missing",
     r"(?:package|import) (?!that)([\w-]+)|(\w+) is not installed|install (?!its|openmim)\W?(\w+)"),
    ("an operator that mmcv has for a GPU alone", r"mmcv has no (\w+)"),
    ("a part of other configs, or not trained", r"the config has no"),
    ("several branches of images", r"several branches"),
    ("annotations that could run code when they are read", r"could run code"),
    ("mmdet itself can't build it", r"lacks options|can't be built"),
)  # fmt: skip
"""Why something is refused, by what was said; a group of the pattern is what is missing."""


# ----------------------------------------------------------------------------------------------------------- choosing


def size_of(name: str) -> tuple[int, int, str]:
    """What sorts configs from small to large."""
    stem = Path(name).stem
    return next((size for size, pattern in reversed(SIZES) if re.search(pattern, stem)), 6), len(stem), stem


def kind_of(cfg: Config) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """What makes a config another kind than its neighbours: its detector, heads, and data sets."""
    model = cfg.get("model") or {}
    parts = [model.get(key) or {} for key in ("detector", "rpn_head", "bbox_head", "roi_head", "mask_head")]
    heads = (scope_and_name(part.get("type"))[1] if isinstance(part, Mapping) else str(len(part)) for part in parts)
    return scope_and_name(model.get("type"))[1], tuple(heads), tuple(kind for kind, _ in data_sets(cfg, "train"))


def data_sets(cfg: Config, phase: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Type and config of every data set of a phase that reads files."""
    pending = [(cfg.get(f"{phase}_dataloader") or {}).get("dataset")]
    while pending:
        dataset = pending.pop()
        inner = [part for part in [(dataset or {}).get("dataset"), *((dataset or {}).get("datasets") or [])] if part]
        pending += inner
        if dataset and not inner:
            yield scope_and_name(dataset.get("type"))[1], dataset


def choose(configs: Path, only: Sequence[str], each: int) -> list[str]:
    """Choose configs, by name below their folder.

    Args:
        configs: the folder.
        only: names or patterns; all that fit are taken.
        each: how many of a folder where there are no patterns.
    """
    names = sorted(path.relative_to(configs).as_posix() for path in configs.rglob("*.py"))
    names = [name for name in names if "_base_" not in Path(name).parts and "/" in name]
    if only:
        chosen = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in only)]
        if not chosen:
            raise UserError(f"--only {' '.join(only)}: no config in {configs} is called so; FAMILY/CONFIG.py or a "
                            "pattern is needed, such as 'tood/*'")  # fmt: skip
        return chosen
    chosen = []
    families = sorted({name.partition("/")[0] for name in names})
    for family in tqdm(families, "choosing configs", unit="folder", leave=False):
        whole: dict[Any, str] = {}
        parts: list[str] = []  # of configs, those of no detector or without data, and what can't be read
        for name in sorted((name for name in names if name.startswith(f"{family}/")), key=size_of):
            try:
                kind = kind_of(Config.fromfile(configs / name, import_custom_modules=False))
            except Exception:  # it says so when it is walked
                kind = ("", (), ())
            if kind[0] and kind[2]:
                whole.setdefault(kind, name)
            else:
                parts.append(name)
        chosen += [*whole.values()][:each] or parts[:1]
    return chosen


def small_images(value: Any, path: str, longest: int) -> Iterator[str]:
    """Yield ``KEY=VALUE`` options that shrink all lengths in the pipelines at or below a part of a config."""
    nodes = [(where, node) for where, node in typed_nodes(value, path)]
    lengths = [
        (f"{where}.{key}", node[key])
        for where, node in nodes for key in LENGTHS
        if isinstance(node.get(key), (list, tuple)) and list(_numbers(node[key]))
    ]  # fmt: skip
    largest = max((number for _, one in lengths for number in _numbers(one) if number <= 2048), default=0)
    if largest <= FIXED:
        return
    for where, one in lengths:
        yield f"{where}={_shrunk(one, longest / largest)}".replace(" ", "")


def _numbers(value: Any) -> Iterator[int]:
    for one in value:
        if isinstance(one, (list, tuple)):
            yield from _numbers(one)
        elif isinstance(one, (int, float)) and abs(one) > 32:
            yield abs(int(one))


def _shrunk(value: Any, factor: float) -> Any:
    """Lengths times a factor, to multiples of 32, or one less where they were odd."""
    if isinstance(value, (list, tuple)):
        return type(value)(_shrunk(one, factor) for one in value) if type(value) in (list, tuple) else [
            _shrunk(one, factor) for one in value
        ]  # fmt: skip
    length = max(64, round(abs(value) * factor / 32) * 32) - value % 2 * (value < 1000)
    return length if value > 0 else -length


# ------------------------------------------------------------------------------------------------------------ running


def run_apart(job: Callable[[], Any], log: Path, seconds: int, memory: int) -> tuple[int, float]:
    """Run a job in a forked process.

    Args:
        job: what it does; its exit status is that of ``sys.exit``, 1 for an error, else 0.
        log: file for all that it prints.
        seconds: of CPU time, or ten times as long in all, after which it is killed.
        memory: bytes of address space that it may take beyond what is taken now.

    Returns:
        Its exit status, minus the number of the signal that killed it; and its seconds of CPU time.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            sys.stdout = sys.stderr = log.open("w", buffering=1)
            for descriptor in (1, 2):
                os.dup2(sys.stdout.fileno(), descriptor)
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
            job()
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    end = time.monotonic() + 10 * seconds
    while True:
        done, state, used = os.wait4(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(state), used.ru_utime + used.ru_stime
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.05)


def outcome(status: int, seconds: float, log: Path) -> dict[str, Any]:
    """What a command came to, by its exit status and what it printed last."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    refusal = re.match(r"\S+: error: (.*)", last)
    if status == 0:
        kind, word = WORKS, ""
    elif status == 2 and refusal:
        kind, word = REFUSED, refusal[1]
    elif status < 0:
        kind, word = WRONG, f"killed by {signal.Signals(-status).name} after {seconds:.0f} s"
    else:
        kind, word = TRACEBACK, last
    return {"outcome": kind, "seconds": round(seconds, 1), "word": word}


def walk_config(path: Path, pictures: Sequence[Picture], folder: Path, args: Any) -> dict[str, Any]:
    """Run both commands on one config.

    Args:
        path: of the config.
        pictures: what its data set is made of.
        folder: to work in; it is emptied.
        args: the command line.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # One process learns what the config asks for, since reading it may import whatever it names.
    status, _ = run_apart(lambda: prepare(path, pictures, folder, args), folder / "prepare.log", args.seconds,
                          args.memory)  # fmt: skip
    facts = json.loads((folder / "facts.json").read_text()) if status == 0 else {"data": [], "options": []}
    result: dict[str, Any] = {"data": facts["data"]}
    for name, command, options in (
        ("report", report, ["--max-images", str(args.max_images), "--pictures", "1"]),
        ("browse", browse, ["-n", str(args.max_images)]),
    ):
        argv = [str(path), "--phase", args.phase, "--out-dir", name, *options]
        argv += ["--cfg-options", *facts["options"]] if facts["options"] else []

        def job(command: Any = command, name: str = name, argv: list[str] = argv) -> None:
            os.chdir(folder)
            sys.argv[0] = name
            command.main(argv)

        log = folder / f"{name}.log"
        result[name] = outcome(*run_apart(job, log, args.seconds, args.memory), log)
        if result[name]["outcome"] == WORKS:
            result[name] |= {"report": look_at_report, "browse": look_at_pictures}[name](folder / name, facts)
    return result


def prepare(path: Path, pictures: Sequence[Picture], folder: Path, args: Any) -> None:
    """Write the data that a config reads, and ``facts.json`` about it."""
    cfg = Config.fromfile(path, import_custom_modules=False)
    names = [scope_and_name(node["type"])[1] for _, node in assigner_nodes(cfg)]
    loader = cfg.get(f"{args.phase}_dataloader") or {}
    options = []
    for where, node in typed_nodes(loader.get("dataset"), f"{args.phase}_dataloader.dataset"):
        if str(node.get("proposal_file")).endswith(".pkl"):  # refused: a pickle may run code when it is read
            node["proposal_file"] = node["proposal_file"].replace(".pkl", ".json")
            options.append(f"{where}.proposal_file={node['proposal_file']}")
    data = write_dataset(loader["dataset"], pictures, folder) if loader else []
    options += list(small_images(loader.get("dataset"), f"{args.phase}_dataloader.dataset", args.size))
    options += small_images((cfg.get("model") or {}).get("data_preprocessor"), "model.data_preprocessor", args.size)
    facts = {"data": sorted(set(data)), "assigners": sorted(set(names)), "options": options}
    (folder / "facts.json").write_text(json.dumps(facts, indent=1))


def look_at_report(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Check that a report has objects and assigners, and none of the config's are missing without a word."""
    data = json.loads((folder / "report.json").read_text())
    sections = data["assigners"]
    found = {where: section["assigner"] for where, section in sections.items()}
    faults = [f"{where}: no objects" for where, section in sections.items() if not section["objects"]]
    faults += [f"{where}: no priors" for where, section in sections.items() if not section["priors"]["total"]]
    told = [*found.values(), *re.findall(r"\w+Assigner", " ".join(data["notes"]))]
    missing = [name for name in facts["assigners"] if name not in told]
    faults += [f"not a word of {name}" for name in missing]
    if not (folder / "report.html").stat().st_size:
        faults.append("the page is empty")
    objects = max((section["objects"] for section in sections.values()), default=0)
    return _judged(faults, assigners=found, objects=objects)


def look_at_pictures(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Check that there are pictures, and that they show something."""
    paths = sorted(folder.glob("*.png"))
    faults = [] if paths else ["no pictures"]
    for path in paths:
        with Image.open(path) as image:
            extrema = image.convert("L").getextrema()
            if extrema[0] == extrema[1]:
                faults.append(f"{path.name} is empty")
    return _judged(faults, pictures=len(paths), assigners=sorted({path.name.split(".", 1)[1][:-4] for path in paths}))


def _judged(faults: Sequence[str], **facts: Any) -> dict[str, Any]:
    return {**facts, **({"outcome": WRONG, "word": "; ".join(faults)} if faults else {})}


# ------------------------------------------------------------------------------------------------------------ showing


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the Markdown table."""
    yield "| folder | config | data | report | browse | a word |"
    yield "|---|---|---|---|---|---|"
    for name, result in sorted(results.items()):
        family, _, config = name.partition("/")
        words = [result[command]["word"] for command in ("report", "browse")]
        word = words[0] if words[0] == words[1] else "; ".join(filter(None, words))
        kinds = sorted({kind.removesuffix("Assigner") for kind in result["report"].get("assigners", {}).values()})
        cells = (family, f"`{config}`", ", ".join(one.removesuffix("Dataset") for one in result["data"]),
                 result["report"]["outcome"], result["browse"]["outcome"], word or ", ".join(kinds))  # fmt: skip
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def reason(word: str) -> tuple[str, str]:
    """The kind of a refusal, and what it names; the words themselves where the kind is unknown."""
    for kind, pattern in REASONS:
        found = re.search(pattern, word)
        if found:
            return kind, next(filter(None, found.groups()), "")
    return word, ""


def groups(results: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a shorter table: which folders came to the same."""
    found: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for name, result in sorted(results.items()):
        outcomes = [result[command]["outcome"] for command in ("report", "browse")]
        kind, detail = reason(next((result[one]["word"] for one in ("report", "browse") if result[one]["word"]), ""))
        found.setdefault((*outcomes, kind), []).append((name.partition("/")[0], detail))
    yield "| report | browse | why | configs | folders |"
    yield "|---|---|---|---:|---|"
    for (report_, browse_, kind), members in sorted(found.items(), key=lambda item: -len(item[1])):
        folders = ", ".join(f"{name} ({detail})" if detail else name for name, detail in dict.fromkeys(members))
        yield f"| {report_} | {browse_} | {kind} | {len(members)} | {folders} |"


def counts(results: Mapping[str, Any]) -> str:
    """How many configs came to what."""
    both = Counter((result["report"]["outcome"], result["browse"]["outcome"]) for result in results.values())
    families = len({name.partition("/")[0] for name in results})
    parts = [f"{number} {a if a == b else f'report {a}, browse {b}'}" for (a, b), number in both.most_common()]
    seconds = sum(result[command]["seconds"] for result in results.values() for command in ("report", "browse"))
    return f"{len(results)} configs of {families} folders, {seconds / 60:.0f} minutes of CPU time: {', '.join(parts)}"


def parse_args(argv: Sequence[str] | None) -> Any:
    """Read the command line."""
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--configs", type=Path, default=CONFIGS, metavar="DIR", help="default: those within mmdet")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a data set in COCO's layout: "
                        "annotations/instances_train2017.json with masks, and train2017/")  # fmt: skip
    parser.add_argument("--only", nargs="+", default=[], metavar="CONFIG",
                        help="these alone, names or patterns: tood/tood_r50_fpn_1x_coco.py 'detr/*'")  # fmt: skip
    parser.add_argument("--each", type=int, default=2, metavar="N", help="at most N of a folder (default: 2)")
    parser.add_argument("--again", action="store_true", help="also those whose results are there already")
    parser.add_argument("--table", action="store_true", help="walk nothing, print what is known")
    parser.add_argument("--out-dir", type=Path, default=Path("work_dirs/walk_zoo"), metavar="DIR",
                        help="for results, logs, reports and pictures (default: work_dirs/walk_zoo)")  # fmt: skip
    parser.add_argument("--phase", choices=["train", "val"], default="train", help="which data set (default: train)")
    parser.add_argument("--max-images", type=int, default=2, metavar="N", help="images of each (default: 2)")
    parser.add_argument("--size", type=int, default=512, metavar="PIXELS", help="of the longer side (default: 512)")
    parser.add_argument(
        "--seconds", type=int, default=180, metavar="N", help="of CPU time for each command (default: 180)"
    )
    parser.add_argument(
        "--gigabytes", type=float, default=10, metavar="N", help="of memory for each command (default: 10)"
    )
    args = parser.parse_args(argv)
    for name in ("each", "max_images", "size", "seconds", "gigabytes"):
        if getattr(args, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} is {getattr(args, name)}; it must be more than 0")
    if not args.table and args.data is None:
        parser.error("--data is needed, a data set in COCO's layout")
    args.memory = int(args.gigabytes * 1024**3)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Walk as the command line says; 1 where something ended in a traceback or came out wrong."""
    with user_errors():
        args = parse_args(argv)
        path = args.out_dir / "results.json"
        results: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        if not args.table:
            annotations = args.data / "annotations" / "instances_train2017.json"
            check_file(str(annotations), "annotation file", "give --data the folder of a data set in COCO's layout")
            pictures = load_pictures(annotations, args.data / "train2017", 6)
            names = choose(args.configs, args.only, args.each)
            walk(args, names if args.again else [name for name in names if name not in results], pictures, results)
    for line in (*table(results), "", *groups(results), "", counts(results)):
        print(line)
    bad = {TRACEBACK, WRONG}
    return int(
        any(result[command]["outcome"] in bad for result in results.values() for command in ("report", "browse"))
    )


def walk(args: Any, names: Iterable[str], pictures: Sequence[Picture], results: dict[str, Any]) -> None:
    """Walk configs and write the results as they come."""
    torch.set_num_threads(1)
    for variable in [name for name in os.environ if name.startswith("VISDET_")]:
        del os.environ[variable]  # where data sets lie is what the configs say
    args.out_dir.mkdir(parents=True, exist_ok=True)
    for name in (progress := tqdm(list(names), unit="config")):
        progress.set_description(f"{name[:60]:60}")
        folder = args.out_dir.resolve() / name.removesuffix(".py")
        results[name] = walk_config(args.configs.resolve() / name, pictures, folder, args)
        part = args.out_dir / ".results.json.part"
        part.write_text(json.dumps(dict(sorted(results.items())), indent=1))
        part.replace(args.out_dir / "results.json")


if __name__ == "__main__":
    sys.exit(main())
