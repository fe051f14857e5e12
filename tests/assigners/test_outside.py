"""An assigner that is not of this repository is tried by the contract tests: its own file has the case."""

import os
import subprocess
import sys

import pytest

from toolbox import ROOT

FILE = '''
import torch

from assigners.cases import Case
from visdet_assigners import Assignment, NEGATIVE
from visdet_assigners.assigners.dense import DenseAssigner
from visdet_assigners.testing.feeds import prior_boxes


class CoveringAssigner(DenseAssigner):
    """A prior is positive for the last object that it covers whole."""

    def decide(self, image):
        priors, gts = image.fields["priors"], image.gts
        index = torch.full((len(priors),), NEGATIVE)
        for number, box in enumerate(gts):
            covers = (priors[:, :2] <= box[:2]).all(1) & (priors[:, 2:] >= box[2:]).all(1)
            index[covers & (box[2:] > box[:2]).all()] = number
        return Assignment(index, torch.zeros(len(priors)){MISTAKE})


CASES = {"CoveringAssigner": Case(CoveringAssigner, prior_boxes, ("priors",), ("priors",))}
'''
LAWS = "Covering and (well_formed or few_or_none or empty_boxes or half_precision or batch)"


def run(tmp_path, mistake: str) -> subprocess.CompletedProcess:
    (tmp_path / "own_cases.py").write_text(FILE.replace("{MISTAKE}", mistake))
    environment = os.environ | {"VISDET_ASSIGNERS_CASES": str(tmp_path / "own_cases.py"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/assigners/test_contract.py"]
    return subprocess.run([*command, "-k", LAWS], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow(reason="two runs of pytest")
@pytest.mark.parametrize(("mistake", "status"), [("", 0), (" + 1", 1)])
def test_the_laws_are_tried(tmp_path, mistake, status):
    done = run(tmp_path, mistake)
    assert done.returncode == status, done.stdout
    assert "CoveringAssigner" in done.stdout or status == 0
    assert " passed" in done.stdout
