"""Many images at once on a device: padded to one size, as many as fit the memory budget."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visdet_assigners.assigners.base import BaseAssigner
from visdet_assigners.assigners.memory import within_memory
from visdet_assigners.assignment import AssignResult
from visdet_assigners.functional.blocks import split
from visdet_assigners.functional.tensors import as_tensor

Images = Sequence[tuple[Any, Any, Any, Any]]
"""Predictions, ground truths, ignore regions or None, and meta data or None of each image."""


class BatchingAssigner(BaseAssigner):
    """An assigner whose ``assign_batch`` works on many images at once where that is faster: on a device.

    There the images that have ground truths and as many priors go together, as many as fit the memory budget; the
    others, and on a CPU all, are assigned one by one.  A CPU gains nothing from more images at once: what is near in
    one image fills its cache.
    """

    @abstractmethod
    def assign_images(self, images: Images, **shared: Any) -> list[AssignResult]:
        """Assign images that all have ground truths and as many priors, at once; equal to ``assign`` for each."""

    @abstractmethod
    def takes_images(self, **shared: Any) -> bool:
        """Whether ``assign_images`` can be used with these settings and arguments."""

    @abstractmethod
    def bytes_of(self, pred_instances: Any, num_gts: int) -> int:
        """Bytes that the temporaries of an image take that is padded to so many ground truths."""

    @abstractmethod
    def read_image(self, pred_instances: Any, gt_instances: Any) -> tuple[Any, ...]:
        """Fetch what is needed of an image."""

    def read_images(self, images: Images) -> list[tuple[Any, ...]]:
        """Fetch what is needed of all images, errors naming theirs."""
        read = []
        for pred, gt, _, meta in images:
            self.about(meta, gt, pred)
            read.append(self.read_image(pred, gt))
        self.call.settle()
        return read

    @within_memory
    @torch.no_grad()
    def assign_batch(
        self,
        pred_list: Sequence[Any],
        gt_list: Sequence[Any],
        ignore_list: Sequence[Any] | None = None,
        img_metas: Sequence[Mapping[str, Any]] | None = None,
        **shared: Any,
    ) -> list[AssignResult]:
        """Assign B images, equal to ``assign`` for each; the arguments are those of ``BaseAssigner.assign_batch``.

        On a device images are padded to one size and worked on at once; a CPU takes them one by one, which is faster.
        """
        images = self.images_of(pred_list, gt_list, ignore_list, img_metas)
        on_device = len(gt_list) and self.on_device(gt_list[0])
        if self.compile or not on_device or not self.takes_images(**shared):
            return super().assign_batch(pred_list, gt_list, ignore_list, img_metas, **shared)
        results: dict[int, AssignResult] = {}
        for group in self._groups(images, as_tensor(gt_list[0].bboxes).device):
            if len(group) > 1:
                results.update(zip(group, self.assign_images([images[number] for number in group], **shared)))
        for number in set(range(len(images))) - set(results):
            own = [None if each is None else each[number : number + 1] for each in (ignore_list, img_metas)]
            results[number] = super().assign_batch([pred_list[number]], [gt_list[number]], *own, **shared)[0]
        return [results[number] for number in range(len(images))]

    def _groups(self, images: Images, device: torch.device) -> list[list[int]]:
        """Numbers of images that go together on a device."""
        of_size: dict[int, list[int]] = {}
        counts = [self.count(gt) for _, gt, _, _ in images]
        for number, (pred, *_) in enumerate(images):
            if counts[number] and self.count(pred):
                of_size.setdefault(self.count(pred), []).append(number)
        groups = []
        for numbers in of_size.values():
            most = max(counts[number] for number in numbers) + 1
            each = max(self.bytes_of(images[number][0], most) for number in numbers)
            groups += [numbers[block] for block in split(len(numbers), each, device)]
        return groups


def places(counts: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Where the ground truths of images stand: (T,) int64 the image, (T,) the number in it; T is the sum of counts."""
    image = np.repeat(np.arange(len(counts)), counts)
    number = np.concatenate([np.arange(count) for count in counts])
    found = torch.from_numpy(np.stack([image, number])).to(like.device, non_blocking=True)  # made on the host
    return found[0], found[1]
