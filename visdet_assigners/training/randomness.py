"""Random states of a training, so that one that is resumed draws what it would have drawn without the interruption.

mmengine keeps none: dropout, sampled anchors and noisy queries differ after a resume, and the workers that load images
begin at the seed again, with the flips of the first epoch.  Workers load ahead of the training, so their states travel
to it with the batches.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info

State = dict[str, Any]
"""The random states of one process, in plain numbers, which a checkpoint may hold."""
KEY = "visdet_assigners.random_state"
"""Where a batch carries the number of its worker and the worker's state after it."""


def random_state() -> State:
    """Return the states of Python, numpy and torch, and of the device where CUDA is in use."""
    name, keys, *rest = np.random.get_state(legacy=True)
    numbers = np.asarray(keys).tolist()
    state = dict(python=random.getstate(), numpy=(name, numbers, *rest), torch=torch.get_rng_state().tolist())
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state().tolist()
    return state


def set_random_state(state: State) -> None:
    """Go on from what `random_state` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.tensor(state["cuda"], dtype=torch.uint8))


class _Collate:
    """A collate function that adds the state of its worker to each batch."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate

    def __call__(self, items: Any) -> Any:
        batch = self.collate(items)
        worker = get_worker_info()
        if worker is not None and isinstance(batch, dict):
            # A tensor travels through shared memory.  A text of this length would fill the pipe to the training, on
            # which workers would then wait for ever if the training were killed.
            text = json.dumps(random_state()).encode()
            batch[KEY] = (worker.id, torch.frombuffer(bytearray(text), dtype=torch.uint8))
        return batch


class _GoOn:
    """A ``worker_init_fn`` that lets each worker go on from a state; None leaves it at its seed."""

    def __init__(self, init: Callable[[int], Any] | None, states: Sequence[State | None]) -> None:
        self.init, self.states = init, states

    def __call__(self, worker: int) -> None:
        if self.init is not None:
            self.init(worker)
        state = self.states[worker]
        if state is not None:
            set_random_state(state)


class LoaderStates:
    """Follows the random states of the workers of a data loader, and lets them go on from earlier ones.

    A worker loads every W-th batch.  States are kept by the place of the batch in that order, not by the worker: in a
    stream without epochs that goes on at batch k, worker 0 takes over from the one that batch k would have come from.

    Args:
        loader: its collate function is wrapped.
        begun: number of batches of the stream before the first that it loads; 0 where it begins with an epoch.
    """

    def __init__(self, loader: DataLoader, begun: int = 0) -> None:
        self.loader = loader
        self.begun = begun
        self._texts: list[str | None] = [None] * loader.num_workers
        self._as_found: tuple[Any, Any] | None = None
        if not isinstance(loader.collate_fn, _Collate):
            loader.collate_fn = _Collate(loader.collate_fn)

    def take(self, batch: Any) -> None:
        """Take the state out of a batch before it is trained on."""
        if self._as_found is not None:  # the workers are at work: later ones begin as they would have
            self.loader.worker_init_fn, self.loader.generator = self._as_found
            self._as_found = None
        found = batch.pop(KEY, None) if isinstance(batch, dict) else None
        if found is not None:
            worker, state = found
            self._texts[(worker + self.begun) % len(self._texts)] = state.numpy().tobytes().decode()

    @property
    def states(self) -> list[State | None]:
        """The state of each place after its last batch; None where it had none."""
        return [None if text is None else json.loads(text) for text in self._texts]

    def seeds(self) -> dict[str, Any]:
        """Return the seeds of the sampler and of the workers, which mmengine draws where the config gives none."""
        init = self.loader.worker_init_fn
        return dict(
            sampler=getattr(_sampler(self.loader), "seed", None), workers=getattr(init, "keywords", {}).get("seed")
        )

    def go_on(self, seeds: dict[str, Any], states: Sequence[State | None] | None, quietly: bool) -> None:
        """Go on from earlier seeds and states.

        Args:
            seeds: as `seeds` returned them.
            states: of each place; None where the workers begin at their seeds anyway.
            quietly: don't draw from the main process for the first workers: an uninterrupted training has them.
        """
        loader = self.loader
        if seeds["sampler"] is not None:
            _sampler(loader).seed = seeds["sampler"]
        if seeds["workers"] is not None and isinstance(loader.worker_init_fn, functools.partial):
            loader.worker_init_fn = functools.partial(loader.worker_init_fn, seed=seeds["workers"])
        self._as_found = loader.worker_init_fn, loader.generator
        if quietly:
            loader.generator = torch.Generator()
        if states:
            self._texts = [None if state is None else json.dumps(state) for state in states]
            turned = [states[(worker + self.begun) % len(states)] for worker in range(len(states))]
            loader.worker_init_fn = _GoOn(loader.worker_init_fn, turned)


def _sampler(loader: DataLoader) -> Any:
    """Return what draws the numbers of the images: mmdet's batch samplers hold it."""
    return getattr(loader.batch_sampler, "sampler", loader.sampler)
