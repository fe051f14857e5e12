"""Settings of all tests: one thread, so that two runs don't wait for each other, the same examples, mmdet as it was."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
collect_ignore = ["stand_ins"]  # packages for interpreters of their own
torch.set_num_threads(1)
# No deadline: a busy machine is no failure.  `pytest --hypothesis-profile=slow` draws more, others each time.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("slow", deadline=None, max_examples=10_000, print_blob=True)
settings.load_profile("ci")


@pytest.fixture(autouse=True)
def mmdet_keeps_its_classes():
    """Undo the drop-in: a worker runs tests of any module after one another, and the next may ask for mmdet's."""
    yield
    if "visdet_assigners.dropin" in sys.modules:
        sys.modules["visdet_assigners.dropin"].restore()
