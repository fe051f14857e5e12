"""Times on a device: against mmdet's classes, distances, assignment problems, and the matching of a whole iteration."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from visdet_assigners.assigners import HungarianAssigner
from visdet_assigners.assigners.calling import to_device
from visdet_assigners.functional import lsap, lsap_device
from visdet_assigners.functional.boxes import l1_distance
from visdet_assigners.registry import REGISTERED, scope_and_name
from visdet_assigners.testing.benchmarks import SCENES, Scene, drawn
from visdet_assigners.testing.gpu.cases import tensors_of, working_on
from visdet_assigners.testing.gpu.outcomes import FailedError, Numbers, Session, SkippedError, compare
from visdet_assigners.testing.measure import time_interleaved
from visdet_assigners.testing.scenes import generator

QUICK = ("RetinaNet", "TOOD", "Deformable DETR")
SHAPES = (((300, 4), (7, 4)), ((900, 4), (50, 4)), ((300, 4), (5250, 4)), ((56, 900, 4), (56, 50, 4)))
"""Of boxes whose distances are measured: a query head's, YOLOF's, a whole iteration's."""
DETR = ("Deformable DETR", "DINO")
LAYERS = 7


def run_times(session: Session, mmdet: Any, why_not: str) -> None:
    """All checks of this file.

    Args:
        session: of the checks.
        mmdet: the module of mmdet's assigners, None where it can't be imported.
        why_not: why it can't.
    """
    for shapes in SHAPES:
        session.check("distances", " and ".join(map(str, shapes)), distances, shapes)
    session.check("assignment problems", "208 of 300 x 100", problems_on_the_device, 60 if session.quick else 208)
    for name in DETR[:1] if session.quick else DETR:
        session.check("a whole iteration", f"{name}, 8 images, {LAYERS} layers", whole_iteration, name, mmdet)
    scenes = [scene for name, scene in SCENES.items() if name in QUICK or not session.quick]
    for count in (7,) if session.quick else (7, 50, 300):
        for scene in scenes:
            session.check(f"times, {count} objects", scene.name, against_mmdet, scene, count, mmdet, why_not)


def rounds_of(session: Session) -> int:
    """How often each call is timed."""
    return 2 if session.quick else 15


def microseconds(seconds: float) -> float:
    """Rounded."""
    return round(1e6 * seconds, 1)


# ------------------------------------------------------------------------------------------------------ one assigner


def against_mmdet(session: Session, scene: Scene, count: int, mmdet: Any, why_not: str) -> tuple[str, Numbers]:
    """Ours and mmdet's on the same inputs, in turns; and whether they decide alike on this device."""
    image = (240, 320) if session.quick else scene.image
    options = {name: value for name, value in scene.config.items() if name != "type"}
    kind = scope_and_name(scene.config["type"])[1]
    arguments = to_device(scene.call(drawn(count, image)), session.device)
    mine = REGISTERED[kind](**options)
    calls: list[Callable[[], Any]] = [lambda: mine.assign(*arguments)]
    if mmdet is not None:
        with mmdets_scope():
            theirs = getattr(mmdet, kind)(**options)
        calls.append(lambda: theirs.assign(*arguments))
    with working_on(session.device):
        results = [call() for call in calls]
        times = time_interleaved(calls, rounds_of(session))
    numbers: Numbers = {"ours, microseconds": microseconds(times[0].median), "ours, spread": round(times[0].spread, 3)}
    if mmdet is None:
        return f"{numbers['ours, microseconds']:.0f} us; without mmdet: {why_not}", numbers
    numbers["mmdet, microseconds"] = microseconds(times[1].median)
    numbers["mmdet over ours"] = round(times[1].median / times[0].median, 2)
    numbers["priors that differ from mmdet"] = int((results[0].gt_inds != results[1].gt_inds).sum())
    ending = f"; {numbers['priors that differ from mmdet']} of {results[0].gt_inds.numel()} decided otherwise"
    return (
        f"{numbers['ours, microseconds']:.0f} us, mmdet {numbers['mmdet, microseconds']:.0f} us: "
        f"{numbers['mmdet over ours']} times{ending if numbers['priors that differ from mmdet'] else ''}"
    ), numbers


@contextmanager
def mmdets_scope() -> Iterator[None]:
    """Names of configs mean mmdet's classes inside."""
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


# --------------------------------------------------------------------------------------------------------- distances


def distances(session: Session, shapes: tuple[tuple[int, ...], ...]) -> tuple[str, Numbers]:
    """Subtraction against ``torch.cdist``: time, and whether they are equal."""
    first, second = (torch.rand(shape, generator=generator(n)).to(session.device) for n, shape in enumerate(shapes))
    cdist = functools.partial(torch.cdist, first, second, p=1)
    with working_on(session.device):
        mine = functools.partial(l1_distance, first, second)
        gap = (mine() - cdist()).abs()
        times = time_interleaved([mine, cdist], rounds_of(session))
    numbers = {
        "subtraction, microseconds": microseconds(times[0].median),
        "cdist, microseconds": microseconds(times[1].median),
        "equal to the last bit": int((gap == 0).sum()),
        "of": gap.numel(),
        "largest difference": float(gap.max()),
    }
    if numbers["largest difference"] > 1e-6:
        raise FailedError("the distances differ by more than rounding", **numbers)
    return (
        f"{times[0].median * 1e6:.0f} us by subtraction, {times[1].median * 1e6:.0f} us by cdist; "
        f"{numbers['equal to the last bit']} of {gap.numel()} equal to the last bit"
    ), numbers


# ------------------------------------------------------------------------------------------------ one-to-one matching


def problems_on_the_device(session: Session, count: int) -> tuple[str, Numbers]:
    """Pairs that torch-linear-assignment finds on the device, ties among them, against scipy's; and the times."""
    if lsap_device.installed() is None:
        raise SkippedError("torch-linear-assignment is not installed")
    if session.cuda and not lsap_device.solves(session.device):
        raise SkippedError("torch-linear-assignment has no kernel for this device")
    costs = torch.randn(count, 300, 100, generator=generator(0))
    costs[::2] = costs[::2].round()  # ties
    own = torch.randint(101, (count,), generator=generator(1)).tolist()
    costs = (costs * (torch.arange(100) < torch.tensor(own)[:, None])[:, None]).to(session.device)
    with working_on(session.device):
        solve = functools.partial(lsap.matched_columns, [costs], [own])
        if lsap_device.solver_for([costs], [own]) is None:
            raise FailedError("torch-linear-assignment is installed and not asked")

        def on_host() -> list[Tensor]:
            with patch.object(lsap_device, "MANY", count + 1):
                return solve()

        differ = int((solve()[0] != on_host()[0]).sum())
        times = time_interleaved([solve, on_host], rounds_of(session))
        failed = lsap_device.solver_for([costs], [own]) is None  # then it is not asked again
    numbers = {
        "rows that differ": differ,
        "device, microseconds": microseconds(times[0].median),
        "host, microseconds": microseconds(times[1].median),
    }
    if differ or failed:
        raise FailedError("the package failed" if failed else f"{differ} rows differ from scipy's", **numbers)
    return f"scipy's pairs; {1e6 * times[0].median:.0f} us, {1e6 * times[1].median:.0f} us by scipy", numbers


def whole_iteration(session: Session, name: str, mmdet: Any) -> tuple[str, Numbers]:
    """What a batched head matches in an iteration, at once, one by one, and with mmdet's class."""
    scene = SCENES[name]
    image, images = ((240, 320), 2) if session.quick else (scene.image, 8)
    options = {key: value for key, value in scene.config.items() if key != "type"}
    assigner = HungarianAssigner(**options)
    calls = [
        to_device(scene.call(drawn(3 + 5 * (number % images), image, seed=number)), session.device)
        for number in range(images * LAYERS)
    ]
    preds, gts, metas = (list(part) for part in zip(*calls))
    together = functools.partial(assigner.assign_batch, preds, gts, img_metas=metas)

    def one_by_one(which: Any) -> list[Any]:
        return [which.assign(*call) for call in calls]

    timed = [together, functools.partial(one_by_one, assigner)]
    if mmdet is not None:
        with mmdets_scope():
            timed.append(functools.partial(one_by_one, mmdet.HungarianAssigner(**options)))
    with working_on(session.device):
        results = [call() for call in timed]
        for mine, other in zip(*results[:2], strict=True):
            compare(tensors_of(mine), tensors_of(other), "one by one")
        times = time_interleaved(timed, rounds_of(session))
    names = ["at once", "one by one", "mmdet"][: len(timed)]
    numbers = {f"{which}, microseconds": microseconds(each.median) for which, each in zip(names, times)}
    numbers["on the device"] = int(lsap_device.installed() is not None and lsap_device.solves(session.device))
    return ", ".join(f"{each.median * 1e3:.1f} ms {which}" for which, each in zip(names, times)), numbers
