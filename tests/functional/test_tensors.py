"""Tensors made alike: padded to one size, and functions that round equal entries equally."""

import pytest
import torch

from visdet_assigners.functional.tensors import REGISTER, autocasts, evenly, full_precision, padded


def test_padding():
    tensors = [torch.ones(2, 3), torch.ones(0, 3), 2 * torch.ones(4, 3)]
    values, valid = padded(tensors)
    assert values.shape == (3, 5, 3)  # one row behind the longest
    assert valid.tolist() == [[True] * 2 + [False] * 3, [False] * 5, [True] * 4 + [False]]
    assert (values[~valid] == 0).all()
    for image, tensor in enumerate(tensors):
        assert torch.equal(values[image, : len(tensor)], tensor)
    values, valid = padded([torch.ones(0, 4)])
    assert values.tolist() == [[[0] * 4]]
    assert valid.tolist() == [[False]]


@pytest.mark.parametrize("count", [0, 1, REGISTER - 1, REGISTER, REGISTER + 1, 3 * REGISTER + 5])
def test_equal_entries_have_equal_results(count):
    x = torch.full((count,), 0.3)
    for function in (torch.sigmoid, lambda values: values**2.3):
        result = evenly(function, x)
        assert result.shape == x.shape
        assert (result == function(torch.full((REGISTER,), 0.3))[0]).all()
    grid = torch.arange(float(count)).view(1, -1)
    assert torch.equal(evenly(lambda values: values + 1, grid), grid + 1)


def test_wherever_they_stand_in_a_row_of_any_length():
    """Without it the last ones of these rows round by other instructions than the first."""
    differ = False
    for value in torch.linspace(-6, 6, 301):
        for count in range(REGISTER - 3, REGISTER + 9):
            row = value.repeat(count)
            found = evenly(torch.sigmoid, row)
            assert (found == found[0]).all()
            differ |= bool((torch.sigmoid(row) != torch.sigmoid(row)[0]).any())
    if torch.backends.cpu.get_cpu_capability() != "DEFAULT":
        assert differ


def test_entries_fill_registers_on_a_cpu_alone(monkeypatch):
    seen = []
    for compiles in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiles=compiles: compiles)
        evenly(lambda values: seen.append(values.shape) or values, torch.zeros(3, 2))
    assert seen == [(REGISTER,), (3, 2)]
    evenly(lambda values: seen.append(values.shape) or values, torch.zeros(3, 2, device="meta"))
    assert seen[-1] == (3, 2)


def test_autocast_is_off_inside():
    assert not autocasts("cpu")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert autocasts("cpu")
        with full_precision():
            assert not autocasts("cpu")
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
        assert autocasts("cpu")


def test_before_torch_2_4(monkeypatch):
    """There the question takes no kind of device."""

    def old(*kind):
        if kind:
            raise TypeError
        return True

    monkeypatch.setattr(torch, "is_autocast_enabled", old)
    monkeypatch.setattr(torch, "is_autocast_cpu_enabled", lambda: False)
    assert autocasts("cuda")
    assert not autocasts("cpu")
