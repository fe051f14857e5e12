"""Two processes over gloo, with `find_unused_parameters` off, whatever the images of each hold."""

import os
import socket
import sys

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

from co_detrs import BRANCHES, build_co, images, losses_of

SLOW = pytest.mark.slow(reason="two more processes")
PRIMARY = dict(type="PrimaryOneToMany")
STEPS = [  # the images of the two processes
    [[[[10.0, 10.0, 60.0, 60.0]], [[30.0, 5.0, 80.0, 50.0]]], [[[5.0, 5.0, 40.0, 40.0]], []]],
    [[[[10.0, 10.0, 60.0, 60.0]], []], [[], []]],
]


class Losses(torch.nn.Module):
    """DistributedDataParallel runs `forward`."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, data):
        losses = losses_of(self.model, data)
        return sum(value for name, value in losses.items() if "loss" in name)


def train(rank, port, branches, knobs, folder):
    sys.path[:0] = [os.path.dirname(os.path.dirname(__file__))]
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = DistributedDataParallel(Losses(build_co("refined", branches, **knobs)), find_unused_parameters=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    for step in STEPS:
        optimizer.zero_grad()
        model(images(step[rank])).backward()
        optimizer.step()
    torch.save(model.module.model.state_dict(), f"{folder}/{rank}.pth")
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("branches", "knobs"),
    [
        pytest.param(BRANCHES[:2], {}, id="both"),
        pytest.param(BRANCHES[:2], {"pos_queries": False}, id="heads", marks=SLOW),
        pytest.param(BRANCHES[:2], {"aux_losses": False}, id="queries", marks=SLOW),
        pytest.param([PRIMARY], {}, id="primary", marks=SLOW),
        pytest.param([*BRANCHES, PRIMARY], {"conflicts": "ignore"}, id="all", marks=SLOW),
    ],
)
def test_two_processes_stay_in_step(branches, knobs, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(train, (port, branches, knobs, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2))
    learned = [name for name in first if first[name].is_floating_point() and "running_" not in name]
    assert all(torch.equal(first[name], second[name]) for name in learned)
    torch.manual_seed(0)
    start = build_co("refined", branches, **knobs).state_dict()
    assert any(not torch.equal(first[name], start[name]) for name in learned if name.startswith("encoder"))
