"""Every kind of bad or extreme input on every assigner and match cost, and the page that says what becomes of it."""

import pytest

from reliability.faults import FAULTS, REPLACED
from reliability.page import PAGE, complaints, find, page
from reliability.subjects import COSTS, SUBJECTS
from visdet_assigners import BaseAssigner
from visdet_assigners.match_costs import BaseMatchCost
from visdet_assigners.registry import REGISTERED


@pytest.fixture(scope="module")
def assigners():
    return find(FAULTS, SUBJECTS)


@pytest.fixture(scope="module")
def costs():
    return find([fault for fault in FAULTS if fault.costs], COSTS)


@pytest.fixture(scope="module")
def replaced():
    return find(REPLACED, SUBJECTS, policy="replace")


def test_every_assigner_and_cost_is_in_the_table():
    names = {name for name, cls in REGISTERED.items() if issubclass(cls, BaseAssigner)}
    assert names == {subject.name for subject in SUBJECTS}
    names = {name for name, cls in REGISTERED.items() if issubclass(cls, BaseMatchCost)}
    assert names == {subject.options["match_costs"][0]["type"] for subject in COSTS}


def test_no_assigner_is_wrong_or_fails_without_a_name(assigners):
    assert complaints(assigners, SUBJECTS) == []


def test_no_cost_is_wrong_or_fails_without_a_name(costs):
    assert complaints(costs, COSTS) == []


def test_what_is_replaced_disturbs_nobody(replaced):
    assert complaints(replaced, SUBJECTS) == []


def test_mmdets_behaviour_is_kept_where_it_is_documented(assigners):
    kept = {number: sum(outcome.letter == "K" for outcome in row) for number, row in assigners.items()}
    # The last ignore regions are two more than mmdet's: ScaleRange and POTO have none, either. ATSS comes twice.
    assert {number: count for number, count in kept.items() if count} == {"A07": 2, "C05": 3, "F01": 8, "G04": 5}


def test_the_page_says_what_is_found(assigners, costs, replaced):
    assert PAGE.read_text() == page(assigners, costs, replaced), "PYTHONPATH=tests python -m reliability.page writes it"
