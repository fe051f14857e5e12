"""Heads that don't contradict each other: background is not counted where another head has a positive.

All auxiliary heads read the same pyramid, and their assigners disagree about its places: on annotations alone, ATSS and
an RPN's MaxIoU contradict each other on 14 to 22 % of the places that either makes positive (``assignment_conflict``).
The paper sees the loss beyond two heads there (section 4.4), and leaves it.  The rule here is not from a paper: at a
place where another head has a positive and a head itself has none, the label weights of its background are 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import torch
from mmdet.models.dense_heads import AnchorHead, PAAHead, VFNetHead
from torch import Tensor

from visdet_assigners.adapting.shadowing import shadow


def check_can_ignore(branches: Sequence[Any]) -> None:
    """Raise for a dense head whose background can't be left out by weights.

    Raises:
        TypeError: a head has no label weights, or doesn't use them.
    """
    for index, branch in enumerate(branches):
        head = getattr(branch, "decides_by_place", None)
        if head is not None and (not isinstance(head, AnchorHead) or isinstance(head, (PAAHead, VFNetHead))):
            raise TypeError(
                f"aux_branches[{index}]: {type(head).__name__} weighs no labels before it decides, so its background "
                "can't be left out; take an anchor head other than PAA and VFNet, or conflicts='count'"
            )


@contextmanager
def ignore_conflicts(branches: Sequence[Any], maps: Sequence[Tensor], samples: Sequence[Any]) -> Iterator[None]:
    """Let the heads of branches leave out background that others contradict, in their losses inside the block.

    Forward pass, assignment and sampling of each dense head are done once, here, and given again inside the block; its
    loss is computed twice, here without gradient.  Branches without a dense head, and those of one's own, neither give
    nor take.

    Args:
        branches: of this package, or of one's own.
        maps: the pyramid, one (B, C, h, w) for each level.
        samples: B data samples.

    Raises:
        TypeError: a head makes no targets, or for other places than the pyramid has.
    """
    dense = [branch for branch in branches if getattr(branch, "decides_by_place", None) is not None]
    if len(dense) < 2:
        yield
        return
    rehearsals = [Rehearsal(branch, maps, samples) for branch in dense]
    places = sum(level.shape[-2] * level.shape[-1] for level in maps)
    positive = [one.positive_places(places) for one in rehearsals]
    with ExitStack() as stack:
        for number, rehearsal in enumerate(rehearsals):
            others = [marks for other, marks in enumerate(positive) if other != number]
            contradicted = [torch.stack(marks).any(dim=0) for marks in zip(*others)]
            ignored = [theirs & ~own for theirs, own in zip(contradicted, positive[number])]
            stack.enter_context(rehearsal.again(ignored))
        yield


class Rehearsal:
    """One dense head's outputs, samples and targets for a batch, kept so that they can be given again.

    Args:
        branch: with ``decides_by_place``, a dense head, and ``loss_by_place``, which computes that head's loss.
        maps: the pyramid.
        samples: B data samples.
    """

    def __init__(self, branch: Any, maps: Sequence[Tensor], samples: Sequence[Any]) -> None:
        self.head: Any = branch.decides_by_place
        self.num_images = len(samples)
        self.outputs: Any = None
        self.targets: list[tuple[Any, ...]] = []
        self.sampled: list[list[Any]] = []
        self.not_yet: list[Any] = []

        def keep_outputs(forward: Any, *args: Any, **kwargs: Any) -> Any:
            with torch.enable_grad():
                self.outputs = forward(*args, **kwargs)
            return self.outputs

        def keep_sample(sample: Any, *args: Any, **kwargs: Any) -> Any:
            self.not_yet.append(sample(*args, **kwargs))
            return self.not_yet[-1]

        def keep_targets(decide: Any, *args: Any, **kwargs: Any) -> Any:
            self.targets.append(decide(*args, **kwargs))
            self.sampled.append(self.not_yet)
            self.not_yet = []
            return self.targets[-1]

        with self._instead(keep_outputs, keep_sample, keep_targets), torch.no_grad():
            branch.loss_by_place(maps, samples)
        if not self.targets or len(self.targets) % self.num_images:
            self._refuse(f"made targets {len(self.targets)} times for {self.num_images} images")

    @contextmanager
    def again(self, ignored: Sequence[Tensor]) -> Iterator[None]:
        """Give the same again inside the block, with weight 0 for background at places, (P,) bool for each image."""
        answers = iter(zip(range(len(self.targets)), self.targets, self.sampled))
        samples: list[Any] = []

        def tell_targets(decide: Any, *args: Any, **kwargs: Any) -> Any:
            number, targets, sampled = next(answers)
            for sample in sampled:  # for those who listen to the sampler
                samples.append(sample)
                self.head.sampler.sample()
            return self._without(targets, ignored[number % self.num_images])

        with self._instead(lambda *_, **__: self.outputs, lambda *_, **__: samples.pop(), tell_targets):
            yield

    def positive_places(self, places: int) -> list[Tensor]:
        """At which places the head has a positive, (P,) bool for each image; targets made last count."""
        found = []
        for targets in self.targets[-self.num_images :]:
            at = self._labels_at(targets)
            if at is None:
                found.append(torch.zeros(places, dtype=torch.bool, device=self.outputs[0][0].device))
                continue
            labels = targets[at]
            if not len(labels) or len(labels) % places:
                self._refuse(f"has {len(labels)} priors, which are no multiple of the pyramid's {places} places")
            found.append(((labels >= 0) & (labels < self.head.num_classes)).view(places, -1).any(dim=1))
        return found

    def _without(self, targets: tuple[Any, ...], ignored: Tensor) -> tuple[Any, ...]:
        """Targets with other label weights; those that were made stay as they are."""
        at = self._labels_at(targets)
        if at is None:
            return targets
        labels, weights = targets[at : at + 2]
        of_priors = ignored[:, None].expand(-1, len(labels) // len(ignored)).reshape(-1)
        weights = weights.masked_fill(of_priors & (labels >= self.head.num_classes), 0)
        return (*targets[: at + 1], weights, *targets[at + 2 :])

    def _labels_at(self, targets: tuple[Any, ...]) -> int | None:
        """Where labels (N,) stand, with their weights behind them; None where an image has no valid prior."""
        if all(part is None for part in targets):
            return None
        for at, (first, second) in enumerate(pairwise(targets)):
            vectors = all(isinstance(part, Tensor) and part.ndim == 1 for part in (first, second))
            if vectors and not first.is_floating_point() and second.is_floating_point() and len(first) == len(second):
                return at
        return self._refuse("gives no label weights")

    def _instead(self, forward: Any, sample: Any, decide: Any) -> ExitStack:
        """Put three functions in the place of the head's methods."""
        stack = ExitStack()
        stack.enter_context(shadow(self.head, "forward", forward))
        if hasattr(getattr(self.head, "sampler", None), "sample"):
            stack.enter_context(shadow(self.head.sampler, "sample", sample))
        stack.enter_context(shadow(self.head, "_get_targets_single", decide))
        return stack

    def _refuse(self, reason: str) -> Any:
        raise TypeError(
            f"{type(self.head).__name__} {reason}, so conflicts='ignore' can't work with it; take another anchor head, "
            "or conflicts='count'"
        )
