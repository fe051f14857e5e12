"""Settings of all tests: one thread, so that two runs don't wait for each other, the same examples, mmdet as it was."""

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))
collect_ignore = ["stand_ins"]  # packages for interpreters of their own
torch.set_num_threads(1)
# No deadline: a busy machine is no failure.  `pytest --hypothesis-profile=slow` draws more, others each time.
settings.register_profile("ci", deadline=None, derandomize=True)
quick = {"max_examples": 40, "suppress_health_check": [HealthCheck.filter_too_much]}  # of 20 some draw none
settings.register_profile("quick", deadline=None, derandomize=True, **quick)
settings.register_profile("slow", deadline=None, max_examples=10_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark two thirds of each product that is ``thinned`` slow; every value meets some of the others in the rest."""
    products = {}
    for item in items:
        if item.get_closest_marker("thinned") and hasattr(item, "callspec"):
            products.setdefault((item.path, item.originalname), []).append(item)
    for product in products.values():
        places = [item.callspec.indices for item in product]
        long = [name for name in places[0] if max(place[name] for place in places) >= 2]
        for item, place in zip(product, places):
            if len(long) > 1 and sum(place[name] for name in long) % 3:
                item.add_marker(pytest.mark.slow(reason="a third of the product is enough"))


@pytest.fixture(scope="module", autouse=True)
def default_scope_of_a_module():
    """Each module begins without a default scope of mmengine's, as in a process of its own."""
    from mmengine.registry import DefaultScope

    DefaultScope._instance_dict.clear()


@pytest.fixture(autouse=True)
def mmdet_keeps_its_classes():
    """Undo the drop-in: a worker runs tests of any module after one another, and the next may ask for mmdet's."""
    yield
    if "visdet_assigners.dropin" in sys.modules:
        sys.modules["visdet_assigners.dropin"].restore()
