"""Who says how ties are ordered: the call, then the package, then the environment; and only as long as it lasts."""

import pytest

from visdet_assigners.functional.select import ties_by_index
from visdet_assigners.settings import set_deterministic, using


@pytest.fixture(autouse=True)
def package_as_it_comes(monkeypatch):
    monkeypatch.delenv("VISDET_ASSIGNERS_DETERMINISTIC", raising=False)
    yield
    set_deterministic(None)


def test_who_says(monkeypatch):
    assert not ties_by_index()
    monkeypatch.setenv("VISDET_ASSIGNERS_DETERMINISTIC", "1")
    assert ties_by_index()
    set_deterministic(False)
    assert not ties_by_index()
    with using(deterministic=True):
        assert ties_by_index()
        with using(deterministic=False):
            assert not ties_by_index()
        with using(deterministic=None):
            assert not ties_by_index()  # as the package says
        assert ties_by_index()
    assert not ties_by_index()
    set_deterministic(None)
    assert ties_by_index()


def test_an_error_ends_it_too():
    with pytest.raises(KeyError), using(deterministic=True):
        raise KeyError
    assert not ties_by_index()
