"""Very many objects fit into a gigabyte; mmdet's assigners would need 90 and 5 of them here."""

import json
import subprocess
import sys

import pytest

from visdet_assigners.functional.blocks import checked_budget, limit_memory, memory_budget, set_memory_budget

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
    ("scene", "objects", "priors"), [("RPN", 10_000, 267_069), ("YOLOX", 2_000, 8_400), ("RTMDet", 2_000, 8_400)]
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
    with limit_memory(3000):
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
