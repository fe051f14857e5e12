"""What the assigners do, while training: numbers and pictures for every visualisation backend of mmengine.

custom_hooks = [dict(type="visdet_assigners.AssignmentHook")]
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from mmcv import imresize
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from numpy.typing import NDArray

from visdet_assigners.dropped import replaced_counts
from visdet_assigners.observe.draw import draw_assignments, render
from visdet_assigners.observe.panels import panels_of
from visdet_assigners.observe.records import AssignmentCall, AssignmentRecord, ImageInfo, as_record
from visdet_assigners.observe.statistics import ObjectTable, mean_quality
from visdet_assigners.observe.tap import decoder_layers, image_of, watch
from visdet_assigners.registry import HOOKS
from visdet_assigners.training.classes import names_of

# Distance, in parts of the image, within which boxes are those of the same view of an image.
_SAME_BOX = 0.01
# Views of an image, such as its flips, whose matching is remembered.
_VIEWS = 4


class MatchHistory:
    """Which query each object of each image had when the image was last seen, for the instability of DN-DETR.

    Augmentation makes several views of an image, and queries look at places: so matchings are compared between views
    whose objects stand at the same places.
    """

    def __init__(self) -> None:
        self.views: dict[Any, list[tuple[NDArray[np.float32], NDArray[np.int32]]]] = {}

    def update(self, key: Any, boxes: NDArray[np.float32], queries: NDArray[np.int32]) -> NDArray[np.bool_] | None:
        """Remember a matching, and compare it with the last of the same view.

        Args:
            key: of the image.
            boxes: (M, 4) in parts of the image.
            queries: (L, M) query of each object in each decoder layer.

        Returns:
            (L, M) whether the query changed; None where this view is new.
        """
        views = self.views.setdefault(key, [])
        for position, (known, before) in enumerate(views):
            if known.shape == boxes.shape and np.allclose(known, boxes, rtol=0, atol=_SAME_BOX):
                del views[position]
                views.append((boxes, queries))
                return before != queries if before.shape == queries.shape else None
        views.append((boxes, queries))
        del views[:-_VIEWS]
        return None


@HOOKS.register_module()
class AssignmentHook(Hook):
    """Write what the assigners do, as scalars and pictures, to every visualisation backend that the config has.

    For each assigner, under its name in the model: positives per object, share of objects without a positive, mean
    quality of the positives.  For DETR's line also the share of objects whose query changed since the epoch in which
    their image was last seen in the same view, for each decoder layer, and for the encoder where that proposes boxes.

    A process sees its own images only; with several, the numbers are those of the first, and the matching is compared
    for the images that come to the same process again.

    Args:
        interval: iterations from one writing of scalars to the next.
        every: the assignments of one iteration in so many are measured.
        picture_interval: iterations from one picture of each assigner to the next; 0 for none.
        instability: whether to compare matchings between epochs.
    """

    priority = "NORMAL"

    def __init__(
        self, interval: int = 100, every: int = 20, picture_interval: int = 0, instability: bool = True
    ) -> None:
        if min(interval, every) < 1 or picture_interval < 0:
            raise ValueError(
                f"AssignmentHook: interval is {interval}, every {every}, picture_interval {picture_interval}; the "
                "first two must be at least 1, the third may be 0 for no pictures"
            )
        self.interval = interval
        self.every = every
        self.picture_interval = picture_interval
        self.instability = instability
        self.records: list[AssignmentRecord] = []
        self.matches: list[tuple[str, ImageInfo, torch.Tensor, torch.Tensor]] = []
        self.tables: dict[str, list[ObjectTable]] = defaultdict(list)
        self.changes: dict[str, list[NDArray[np.bool_]]] = defaultdict(list)
        self.histories: dict[str, MatchHistory] = defaultdict(MatchHistory)
        self.replaced: dict[tuple[str, str], int] = {}
        self.measuring = False
        self.watching = ExitStack()
        self.decoder_layers: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Begin to watch the model."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.decoder_layers = decoder_layers(model)
        self.replaced = replaced_counts()
        self.watching.enter_context(watch(model, self._see))

    def after_train_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Write what the epoch's last iterations left."""
        self._write(runner, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Write what is left and leave the model as it was."""
        self._write(runner, runner.iter)  # loops without epochs
        self.watching.close()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Decide whether this iteration is measured."""
        self.records, self.matches = [], []
        self.measuring = runner.iter % self.every == 0 or self._draws(runner)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Measure the iteration, and write where it is time to."""
        for record in self.records:
            self.tables[record.where].append(ObjectTable.of([record], [0]))
        self._compare()
        if self._draws(runner):
            self._draw(runner, data_batch)
        if self.every_n_train_iters(runner, self.interval):
            self._write(runner, runner.iter + 1)
        self.records, self.matches = [], []  # or they keep memory until the next iteration

    def _draws(self, runner: Runner) -> bool:
        return self.picture_interval > 0 and self.every_n_train_iters(runner, self.picture_interval)

    def _see(self, call: AssignmentCall) -> None:
        """Keep what is needed of one call; nothing here synchronises with the device."""
        predicted, truths = call.arguments.get("pred_instances"), call.arguments.get("gt_instances")
        are_queries = predicted is not None and getattr(predicted, "priors", None) is None
        if self.instability and are_queries and call.image is not None and call.result.gt_inds.ndim == 1:
            boxes = getattr(truths, "bboxes", None)
            if boxes is not None and call.image.shape is not None:
                boxes = getattr(boxes, "tensor", boxes)
                self.matches.append((call.where, call.image, boxes, call.result.gt_inds))
        if self.measuring:
            self.records.append(as_record(call))

    def _compare(self) -> None:
        """Compare the matchings of this iteration with earlier ones."""
        layers: dict[tuple[str, ImageInfo], list[tuple[NDArray[np.float32], NDArray[np.int32]]]] = defaultdict(list)
        for (where, image, boxes, _), gt_inds in zip(self.matches, _to_host([match[3] for match in self.matches])):
            queries = np.full(len(boxes), -1, dtype=np.int32)
            matched = np.flatnonzero(gt_inds > 0)
            queries[gt_inds[matched] - 1] = matched
            known = layers[where, image]
            known.append((known[0][0] if known else boxes.float().cpu().numpy(), queries))
        for (where, image), found in layers.items():
            key = image.img_id if image.img_id is not None else image.img_path
            corners, _ = found[0]
            if key is None or image.shape is None or not len(corners):
                continue
            height, width = image.shape
            parts = (corners / [width, height, width, height]).astype(np.float32)
            changed = self.histories[where].update(key, parts, np.stack([queries for _, queries in found]))
            if changed is not None:
                self.changes[where].append(changed)

    def _write(self, runner: Runner, step: int) -> None:
        """Write the scalars of what was measured since the last time."""
        scalars: dict[str, float] = {}
        for where, tables in self.tables.items():
            table = ObjectTable.join(tables)
            if len(table):
                scalars[f"assignments/{where}/positives_per_object"] = float(table.positives.mean())
                scalars[f"assignments/{where}/without_positive"] = float((table.positives == 0).mean())
                quality = mean_quality(table)
                if quality is not None:
                    scalars[f"assignments/{where}/quality"] = quality
        for where, changes in self.changes.items():
            for layer, share in enumerate(np.concatenate(changes, axis=1).mean(axis=1)):
                name = "encoder" if layer == self.decoder_layers else f"layer_{layer}"
                scalars[f"assignments/{where}/changed_queries/{name}"] = float(share)
        scalars |= self._replaced(runner)
        if scalars:
            runner.visualizer.add_scalars(scalars, step=step)
        self.tables.clear()
        self.changes.clear()

    def _replaced(self, runner: Runner) -> dict[str, float]:
        """What was dropped since the last time; synchronises with the device."""
        before, self.replaced = self.replaced, replaced_counts()
        scalars = {}
        for (who, what), count in self.replaced.items():
            new = count - before.get((who, what), 0)
            if new:
                scalars[f"assignments/replaced/{who}/{what}"] = float(new)
                runner.logger.warning(f"{who}: {what}: {new} rows were not finite, or no boxes, and were not matched")
        return scalars

    def _draw(self, runner: Runner, data_batch: Any) -> None:
        """Draw the first image of the batch, of a video its key frame, for each assigner."""
        inputs = data_batch.get("inputs") if isinstance(data_batch, Mapping) else None
        if not isinstance(inputs, (list, tuple, torch.Tensor)):  # several branches of images
            return
        pixels, sample, number = image_of(inputs[0], data_batch["data_samples"][0])
        groups: dict[str, list[AssignmentRecord]] = defaultdict(list)
        for record in self.records:
            if record.image is not None and record.image.index == number and panels_of(record):
                groups[record.where].append(record)
        classes = names_of(runner.train_dataloader.dataset)
        for where, records in groups.items():
            labels = records[0].with_labels(sample.gt_instances.labels).gt_labels
            names = [] if labels is None else [classes[n] if n < len(classes) else str(n) for n in labels.tolist()]
            figure = draw_assignments(_as_drawn(pixels, records[0].image), records, names)
            # No slash: backends that write files take it for a folder.
            runner.visualizer.add_image(f"assignments.{where}", render(figure), step=runner.iter + 1)


def _to_host(tensors: Sequence[torch.Tensor]) -> list[NDArray[np.int64]]:
    """Copy tensors of one dimension to the host, all in one transfer."""
    if not tensors:
        return []
    lengths = [len(tensor) for tensor in tensors]
    return np.split(torch.cat(list(tensors)).cpu().numpy(), np.cumsum(lengths)[:-1])


def _as_drawn(pixels: torch.Tensor, image: ImageInfo | None) -> NDArray[np.uint8]:
    """(H, W, 3) RGB from a (3, H, W) BGR input, in the size that the model got it."""
    drawn = pixels.permute(1, 2, 0).cpu().numpy()[..., ::-1].astype(np.uint8)
    if image is not None and image.shape is not None and image.shape != drawn.shape[:2]:  # resized with its batch
        height, width = image.shape
        drawn = imresize(drawn, (width, height))
    return np.ascontiguousarray(drawn)
