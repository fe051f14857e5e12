"""Very many objects fit into a gigabyte; mmdet's assigners would need 90 and 5 of them here."""

import json
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

from visdet_assigners.assigners.calling import assigner_method, to_device
from visdet_assigners.settings import checked_budget, memory_budget, set_memory_budget, using

RUN = """
import json, re, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
import visdet_assigners
from visdet_assigners.testing.benchmarks import SCENES, drawn

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

name, count = sys.argv[1], int(sys.argv[2])
scene = SCENES[name]
config = dict(scene.config)
assigner = getattr(visdet_assigners, config.pop("type"))(**config)
assigner.assign(*scene.call(drawn(3, scene.image)))
arguments = scene.call(drawn(count, scene.image))
before = peak()
result = assigner.assign(*arguments)
after = peak()
positive = int((result.gt_inds > 0).sum())
print(json.dumps({"priors": len(result.gt_inds), "objects": result.num_gts, "positive": positive,
                  "resident": after * 1024, "growth": (after - before) * 1024}))
"""


@pytest.mark.parametrize(
    ("scene", "objects", "priors"),
    [
        pytest.param("RPN", 10_000, 267_069, marks=pytest.mark.slow(reason="ten seconds of computing")),
        ("YOLOX", 2_000, 8_400),
        ("RTMDet", 2_000, 8_400),
    ],
)
def test_very_many_objects_fit_into_a_gigabyte(scene, objects, priors):
    """In a process of its own, what torch and mmdet take included."""
    done = subprocess.run([sys.executable, "-c", RUN, scene, str(objects)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert (found["priors"], found["objects"]) == (priors, objects)
    assert found["positive"] > objects / 2
    assert found["resident"] < 2**30
    assert found["growth"] < 2**29


def test_the_budget_of_a_call_of_the_package_and_of_the_environment(monkeypatch):
    default = memory_budget()
    monkeypatch.setenv("VISDET_ASSIGNERS_MEMORY_BUDGET", "1000")
    assert memory_budget() == 1000
    set_memory_budget(2000)
    assert memory_budget() == 2000
    with using(memory_budget=3000):
        assert memory_budget() == 3000
    set_memory_budget(None)
    monkeypatch.delenv("VISDET_ASSIGNERS_MEMORY_BUDGET")
    assert memory_budget() == default == 256 * 2**20


@pytest.mark.parametrize("budget", [0, -1, "much"])
def test_a_budget_is_a_positive_number_of_bytes(budget, monkeypatch):
    with pytest.raises(ValueError, match=r"the memory budget is .*give a positive number of bytes"):
        checked_budget(budget)
    monkeypatch.setenv("VISDET_ASSIGNERS_MEMORY_BUDGET", str(budget))
    with pytest.raises(ValueError, match="positive number of bytes"):
        memory_budget()


class Full:
    """Its work fits no device before its blocks are as small as it says."""

    deterministic = memory_budget = None
    keeps_gradient = False
    warned_of_memory = False

    def __init__(self, fits):
        self.fits, self.tried = fits, []

    @assigner_method
    def assign(self, boxes):
        self.tried.append(memory_budget())
        if memory_budget() > self.fits and len(self.tried) < 6:
            raise torch.cuda.OutOfMemoryError
        return boxes


@pytest.mark.parametrize(
    ("budget", "fits", "tried"),
    [
        (4, 9, [4]),
        (4, 2, [4, 2]),
        (4, 1, [4, 2, 1]),
        (4, 0.5, [4, 2, 1, 4, ]),  # on the CPU, in blocks as large as in the beginning
        (0.5, 0.1, [0.5, 0.5]),
    ],
)  # fmt: skip
def test_half_the_budget_on_a_full_device(budget, fits, tried):
    """In megabytes; smaller blocks than one free nothing that matters."""
    full = Full(fits * 2**20)
    with using(memory_budget=int(budget * 2**20)), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            full.tried.clear()
            if tried[-1] == tried[0] and len(tried) > 1:
                full.tried += [0] * (6 - len(tried))  # the CPU has room
            assert full.assign(torch.ones(2)).tolist() == [1, 1]
            assert [round(each / 2**20, 3) for each in full.tried if each] == tried
    assert len(said) == (len(tried) > 1)


def test_whatever_holds_tensors_is_copied_to_another_device():
    boxes = torch.zeros(2, 4)
    instances = SimpleNamespace(boxes=boxes, name="a", more=[boxes, {"inner": (boxes, 3)}], kind=SimpleNamespace)
    there = to_device(instances, "meta")
    (first, second), kind = there.more, there.kind
    assert {each.device.type for each in (there.boxes, first, second["inner"][0])} == {"meta"}
    assert (there.name, second["inner"][1], kind) == ("a", 3, SimpleNamespace)
    assert instances.boxes.device.type == "cpu"
