"""The script for a GPU runs whole on a CPU, goes on after failures, and works with as little as it says."""

import contextlib
import json
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

from toolbox import ROOT, load_tool
from visdet_assigners.testing.gpu import limits, parity
from visdet_assigners.testing.gpu.cases import Case, assign, cases
from visdet_assigners.testing.gpu.outcomes import FailedError, Session, SkippedError, compare

CPU = torch.device("cpu")
SOLVER = """
import scipy.optimize, torch
def batch_linear_assignment(cost):
    found = torch.full(cost.shape[:2], -1)
    for row, problem in zip(found, cost.numpy()):
        rows, columns = scipy.optimize.linear_sum_assignment(problem)
        row[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return found
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The script as it is called, with a stand-in for torch-linear-assignment."""
    folder = tmp_path_factory.mktemp("gpu")
    (folder / "torch_linear_assignment.py").write_text(SOLVER)
    command = [sys.executable, ROOT / "tools" / "gpu_check.py", "--device", "cpu", "--quick", "--out", folder / "out"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PATH": ""}
    )
    return done, folder / "out"


def test_it_runs_whole_on_a_cpu(run):
    done, out = run
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((out / "gpu_check.json").read_text())
    outcomes = {(each["group"], each["name"]): each for each in content["outcomes"]}
    assert len(outcomes) == len(content["outcomes"])
    groups = {group for group, _ in outcomes}
    assert {"decisions", "costs", "waits", "half precision", "not finite", "memory", "CUDA graphs"} < groups
    assert {"distances", "assignment problems", "a whole iteration", "times, 7 objects", "compiling"} < groups
    skipped = {group for (group, _), each in outcomes.items() if each["status"] == "skipped"}
    assert skipped == {"CUDA graphs"}
    assert outcomes["decisions", "ATSS"]["numbers"]["gt_inds that differ"] == 0
    assert outcomes["times, 7 objects", "TOOD"]["numbers"]["mmdet over ours"] > 0
    assert "scipy's pairs" in outcomes["assignment problems", "208 of 300 x 100"]["text"]
    assert content["about"]["torch"] == torch.__version__


def test_its_page(run):
    page = (run[1] / "gpu_check.md").read_text()
    assert "\n\nWith this page you can see" in page
    assert "## not finite\n" in page
    assert "| ATSS | ok | 4 results equal to the CPU's |" in page
    assert "(#times,-7-objects)" not in page  # anchors leave out commas
    assert "(#times-7-objects)" in page


def test_every_assigner_is_tried():
    names = {case.cls.__name__ for case in cases()}
    assert {name for name in dir(sys.modules["visdet_assigners"]) if name.endswith("Assigner")} - {
        "BaseAssigner",
        "ScheduledAssigner",  # which hands on to others
    } <= names


def test_without_a_device_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_tool("gpu_check").main([]) == 2
    assert "torch finds no CUDA device; --device cpu tries the script" in capsys.readouterr().err


def test_an_option_that_is_not_known_skips_the_assigner():
    class Needy(Case):
        pass

    def needs_more(self, strength):
        pass

    with pytest.raises(SkippedError, match=r"needs strength; give it in testing/gpu/cases\.py"):
        Needy("needy", type("NeedyAssigner", (), {"__init__": needs_more})).build()


# ------------------------------------------------------------------------------------------------------- what is there

PRELUDE = """
import importlib.util, sys
sys.path.insert(0, "tools")
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name.startswith({broken}):
            raise ImportError("broken on purpose")
sys.meta_path.insert(0, Broken())
import gpu_check
found, why_not = gpu_check.import_mmdet()
"""


def python(broken, code):
    return subprocess.run(
        [sys.executable, "-c", PRELUDE.format(broken=broken) + code], capture_output=True, text=True, cwd=ROOT
    )


def test_operators_that_are_not_compiled_are_stood_in_for():
    code = "from mmcv.ops import nms\nimport torch\nprint(found.ATSSAssigner(9))\n"
    code += (
        "try:\n    nms(torch.rand(2, 4), torch.rand(2), 0.5)\nexcept NotImplementedError as error:\n    print(error)\n"
    )
    done = python(("mmcv._ext",), code)
    assert "ATSSAssigner object" in done.stdout, done.stderr
    assert "mmcv's operator nms is not compiled here" in done.stdout


def test_mmdets_assigners_are_found_without_its_detectors():
    done = python(("mmdet.models.detectors",), "print(found.__name__, 'mmdet.models.dense_heads' in sys.modules)")
    assert done.stdout.strip() == "mmdet.models.task_modules.assigners False", done.stderr


def test_without_mmdet_it_says_why():
    done = python(("mmdet",), "print(found, why_not)")
    assert done.stdout.strip() == "None ImportError: broken on purpose", done.stderr


def test_a_broken_mmengine_counts_as_none():
    code = "import visdet_assigners.registry as registry\nprint(found, why_not, registry.TASK_UTILS)"
    done = python(("addict",), code)
    assert done.stdout.strip() == "None ImportError: broken on purpose None", done.stderr


# ------------------------------------------------------------------------------------------------------------ outcomes


def session(said=None, seconds=60.0):
    return Session(CPU, seconds, quick=True, say=(said if said is not None else []).append)


def test_it_goes_on_after_a_failure(tmp_path):
    def broken(own):
        raise RuntimeError("no | kernel")

    def wrong(own):
        raise FailedError("differs", count=3)

    def left_out(own):
        raise SkippedError("needs more")

    said, own = [], None
    own = session(said)
    for name, check in (
        ("a", broken),
        ("b", wrong),
        ("c", left_out),
        ("d", lambda own: ("fine", {"x": torch.zeros(1)})),
    ):
        own.check("things", name, check)
    assert own.failed
    assert said[0] == "failed  things: a: RuntimeError: no | kernel"
    assert [each.status for each in own.outcomes] == ["failed", "failed", "skipped", "ok"]
    assert "in broken" in own.outcomes[0].numbers["traceback"]
    assert own.outcomes[1].numbers == {"count": 3}
    own.write(tmp_path / "new", {"device": "none"})
    page = (tmp_path / "new" / "gpu_check.md").read_text()
    assert "* 1 ok, 2 failed, 1 skipped" in page
    assert "| a | **failed** | RuntimeError: no \\| kernel |" in page
    assert json.loads((tmp_path / "new" / "gpu_check.json").read_text())["outcomes"][3]["numbers"] == {
        "x": "tensor([0.])"
    }


def test_when_time_is_up_no_check_begins():
    own = session(seconds=0)
    own.check("things", "late", lambda own: ("fine", {}))
    assert (own.outcomes[0].status, own.outcomes[0].text) == ("skipped", "no time was left")
    assert not own.failed


def test_results_are_compared():
    one = {"gt_inds": torch.tensor([1, 0]), "max_overlaps": torch.tensor([0.5, float("inf")])}
    assert compare(one, one) == (
        "equal to the CPU's",
        {"gt_inds that differ": 0, "max_overlaps, largest difference": 0.0},
    )
    close = one | {"max_overlaps": torch.tensor([0.5 + 2**-20, float("inf")])}
    assert compare(close, one)[0] == "equal to the CPU's; overlaps and metrics within 9.5e-07"
    for other, told in (
        ({"gt_inds": torch.tensor([2, 2])}, "2 of 2 gt_inds"),
        ({"max_overlaps": torch.tensor([0.5, 0.1])}, "max_overlaps by up to inf"),
        ({"max_overlaps": torch.tensor([0.501, float("inf")])}, "max_overlaps by up to 0.001"),
        ({"max_overlaps": torch.tensor([float("nan"), float("inf")])}, "max_overlaps by up to nan"),
        ({"gt_inds": torch.tensor([1])}, r"gt_inds \(1,\) torch.int64, not \(2,\)"),
        ({"more": torch.zeros(1)}, "more"),
    ):
        with pytest.raises(FailedError, match=told):
            compare(one | other, one)


# ------------------------------------------------------------------------------------- what only CUDA does, played


def test_waits_are_warnings_or_errors_of_cuda(monkeypatch):
    modes = []
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    with parity.counting_waits(torch.device("cuda"), forbid=False) as waits:
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert len(waits) == 1
    with parity.counting_waits(torch.device("cuda"), forbid=True):
        pass
    assert modes == ["warn", 0, "error", 0]


def test_an_assigner_that_waits_is_told():
    class Waiting:
        def assign(self, pred_instances, **rest):
            return bool(pred_instances.priors.sum().item())

        def assign_batch(self, *lists):
            return None

    case = next(case for case in cases() if case.name == "RPN")
    waiting = Case("waiting", case.cls, case.options)
    object.__setattr__(waiting, "build", lambda **more: Waiting() if not more else None)
    object.__setattr__(waiting, "call", case.call)
    with pytest.raises(FailedError, match=r"waited .*'waits for one image': 1.*, 0 are allowed"):
        parity.does_not_wait(session(), waiting)


def test_memory_is_limited_to_little_more_than_is_taken(monkeypatch):
    fractions = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: limits.FREE)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=4 * limits.FREE)
    )
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: fractions.append(share))
    monkeypatch.setattr(Session, "cuda", True)
    with limits.little_memory(session()):
        assert fractions == [0.5]
    assert fractions == [0.5, 1.0]


@pytest.mark.parametrize("works", [True, False])
def test_a_replay_is_compared_with_eager_work_on_the_same_numbers(works, monkeypatch):
    """A graph that is played: replaying works anew, or does nothing."""
    made = []

    def noting(assigner, call):
        made.append((assigner, call, assign(assigner, call)))
        return made[-1][2]

    class Graph:
        def replay(self):
            assigner, call, result = made[captured[0] - 1]
            if works:
                again = assign(assigner, call)
                for name in ("gt_inds", "labels", "max_overlaps"):
                    getattr(result, name).copy_(getattr(again, name))

    captured = []

    @contextlib.contextmanager
    def graph(_):
        yield
        captured.append(len(made))

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, value in dict(
        Stream=lambda: stream, current_stream=lambda: stream, stream=lambda _: contextlib.nullcontext(),
        CUDAGraph=Graph, graph=graph, synchronize=lambda: None,
    ).items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(Session, "cuda", True)
    monkeypatch.setattr(limits, "assign", noting)
    case = next(case for case in cases() if case.name == "ATSS")
    if works:
        text, numbers = limits.can_be_captured(session(), case)
        assert text.startswith("equal to without a graph")
        assert numbers["replay, microseconds"] > 0
    else:
        with pytest.raises(FailedError, match=r"differs from without a graph in .* gt_inds"):
            limits.can_be_captured(session(), case)
