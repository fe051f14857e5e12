"""Record every assignment that a model makes, without touching its code.

All heads of mmdet call ``something.assign(...)`` on an object that one of the model's modules holds; heads that match a
whole batch call its ``assign_batch``.  The tap shadows these methods on the object itself, hands a copy of what went in
and came out to a function, and takes itself off again.

    with record_assignments(model) as records:
        model.loss(inputs, data_samples)
    records[0].positives_per_object()
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from visdet_assigners.observe.records import AssignmentCall, AssignmentRecord, ImageInfo, as_record, place_of

# Name under which data samples and their ground truths carry their image through a head; copies carry it, too.
_MARK = "_tapped_image"
_Around = Callable[..., Any]  # takes what it is around, and that one's arguments


@contextmanager
def watch(model: nn.Module, on_call: Callable[[AssignmentCall], None]) -> Iterator[None]:
    """Call ``on_call`` after every assignment that ``model`` makes inside the ``with`` block.

    Every assigner of the model is covered, ours, mmdet's or anybody's, also in lists, tuples and dictionaries, and
    whether the head asks for one image or for a batch.  The assigners are as before when the block is left, also
    through an exception; watches may overlap.  An assigner that two modules share is known by the first one's name.
    Heads that compute targets themselves (FCOS, AutoAssign) call no assigner.  Don't copy or pickle the model inside
    the block: the copies would keep calling.

    Args:
        model: any detector of mmdet, or a part of one.
        on_call: whatever it raises stops the model.
    """
    step = _Step()
    shadowed: list[tuple[Any, str, _Around]] = []
    try:
        for _, part in named_parts(model):
            if callable(getattr(type(part), "loss", None)):
                shadowed.append((part, "loss", step.loss))
        for module, attribute, assigner in find_assigners(model):
            watched = _Watched(module, attribute, assigner, step, on_call)
            for method in ("assign", "assign_batch"):
                if callable(getattr(assigner, method, None)):
                    shadowed.append((assigner, method, watched.around(getattr(assigner, method))))
        for holder, method, around in shadowed:
            _Shadow.of(holder, method).layers.append(around)
        yield
    finally:
        for holder, method, around in shadowed:
            _Shadow.remove(holder, method, around)


@contextmanager
def tap(model: nn.Module, record: Callable[[AssignmentRecord], None]) -> Iterator[None]:
    """Call ``record`` with a copy of every assignment that ``model`` makes inside the ``with`` block; see ``watch``."""
    with watch(model, lambda call: record(as_record(call))):
        yield


@contextmanager
def record_assignments(model: nn.Module) -> Iterator[list[AssignmentRecord]]:
    """Collect every assignment that ``model`` makes inside the ``with`` block in a list, in the order of the calls."""
    records: list[AssignmentRecord] = []
    with tap(model, records.append):
        yield records


def assigners_by_place(model: nn.Module) -> dict[str, Any]:
    """The assigners that ``find_assigners`` finds, by module and attribute in one name."""
    return {place_of(module, attribute): assigner for module, attribute, assigner in find_assigners(model)}


def named_parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield name and module as ``named_modules`` does, and then those that are held as plain attributes: teachers."""
    pending = [("", model)]
    seen: set[int] = set()
    while pending:
        place, whole = pending.pop(0)
        inside = [(f"{place}.{name}".strip("."), part) for name, part in whole.named_modules() if id(part) not in seen]
        seen.update(id(part) for _, part in inside)
        yield from inside
        for name, part in inside:
            held = [(key, value) for key, value in vars(part).items() if isinstance(value, nn.Module)]
            pending += [(f"{name}.{key}".lstrip("."), value) for key, value in held]


def find_assigners(model: nn.Module) -> Iterator[tuple[str, str, Any]]:
    """Yield module name, attribute and object for every assigner that a part of ``model`` holds, each object once.

    An assigner is an object whose class has a method ``assign`` and is no module; attributes may be lists, tuples or
    dictionaries of them.
    """
    seen: set[int] = set()
    for name, module in named_parts(model):
        for attribute, value in vars(module).items():
            if isinstance(value, (list, tuple)):
                items = [(f"{attribute}[{index}]", item) for index, item in enumerate(value)]
            elif isinstance(value, Mapping):
                items = [(f"{attribute}[{key!r}]", item) for key, item in value.items()]
            else:
                items = [(attribute, value)]
            for place, item in items:
                # On the class: configs (dicts with attributes) and modules answer many names on the instance.
                if isinstance(item, (nn.Module, type)) or not callable(getattr(type(item), "assign", None)):
                    continue
                if id(item) not in seen:
                    seen.add(id(item))
                    yield name, place, item


def decoder_layers(model: nn.Module) -> int | None:
    """Number of decoder layers of a detector of DETR's line; calls after these, as DINO's, are about its encoder."""
    return getattr(getattr(model, "decoder", None), "num_layers", None)


class _Shadow:
    """Stands on an object in the place of one of its methods, with layers around that; gone with the last of them.

    Watches may begin and end in any order, as hooks do.
    """

    def __init__(self, original: Callable[..., Any], before: Any) -> None:
        functools.update_wrapper(self, original)
        self.original = original
        self.before = before
        self.layers: list[_Around] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = self.original
        for around in self.layers:
            call = functools.partial(around, call)
        return call(*args, **kwargs)

    @classmethod
    def of(cls, holder: Any, method: str) -> _Shadow:
        """The shadow of a method, cast now if there is none."""
        present = vars(holder).get(method)
        if not isinstance(present, cls):
            present = vars(holder)[method] = cls(getattr(holder, method), present)
        return present

    @classmethod
    def remove(cls, holder: Any, method: str, around: _Around) -> None:
        """Take one layer away, and the shadow where that was the last; a layer that isn't there is no mistake."""
        shadow = vars(holder).get(method)
        if not isinstance(shadow, cls) or around not in shadow.layers:
            return
        shadow.layers.remove(around)
        if shadow.layers:
            return
        if shadow.before is None:
            del vars(holder)[method]
        else:
            vars(holder)[method] = shadow.before


class _Step:
    """The training step at hand: its images, and how often each assigner was asked for each of them."""

    def __init__(self) -> None:
        self.images: list[ImageInfo] = []
        self.asked: Counter = Counter()

    def loss(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Mark the data samples that a ``loss`` is given with their images while it runs."""
        samples: Sequence[Any] = next(filter(_are_samples, [*args, *kwargs.values()]), [])
        if self.images or not samples:  # a head's loss inside that of the detector, or a loss of something else
            return call(*args, **kwargs)
        self.asked.clear()
        samples = list(_frames(samples))
        self.images = [_mark_of(sample) or _image_info(index, sample) for index, sample in enumerate(samples)]
        marked = []
        for sample, image in zip(samples, self.images):
            for carrier in (sample, sample.gt_instances):
                if _mark_of(carrier) is None:
                    carrier.set_field(image, _MARK, field_type="metainfo")
                    marked.append(carrier)
        try:
            return call(*args, **kwargs)
        finally:
            self.images = []
            for carrier in marked:
                delattr(carrier, _MARK)


class _Watched:
    """One assigner under watch."""

    def __init__(
        self, module: str, attribute: str, assigner: Any, step: _Step, on_call: Callable[[AssignmentCall], None]
    ) -> None:
        self.module = module
        self.attribute = attribute
        self.assigner = assigner
        self.step = step
        self.on_call = on_call
        self.number = 0
        self.busy = False

    def around(self, method: Callable[..., Any]) -> _Around:
        """Return the layer that hands on each image of a method's outcome."""
        signature = inspect.signature(method)
        keywords = [name for name, value in signature.parameters.items() if value.kind is value.VAR_KEYWORD]
        in_common_form = getattr(method, "in_common_form", None)  # of ours, see `assigners.forms`

        def layer(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if self.busy:  # a method for a batch that calls the one for an image
                return call(*args, **kwargs)
            self.busy = True
            try:
                result = call(*args, **kwargs)
            finally:
                self.busy = False
            # Heads pass the same argument by position or by name; only the signature tells which is which.
            if in_common_form is not None:
                args, kwargs = in_common_form(self.assigner, args, kwargs)
            arguments = signature.bind(*args, **kwargs).arguments
            for name in keywords:
                arguments.update(arguments.pop(name, {}))
            self._hand_on(arguments, result)
            return result

        return layer

    def _hand_on(self, arguments: Mapping[str, Any], result: Any) -> None:
        """Call ``on_call`` for each image."""
        images = _images_of(arguments, result)
        for position, (own, outcome) in enumerate(images):
            if getattr(outcome, "gt_inds", None) is None:
                continue
            image = _mark_of(own.get("gt_instances")) or _mark_of(own.get("img_meta"))
            if image is None and len(images) == len(self.step.images):
                image = self.step.images[position]
            repeat = 0
            if image is not None:
                repeat = self.step.asked[id(self), image.index]
                self.step.asked[id(self), image.index] += 1
            number, self.number = self.number, self.number + 1
            self.on_call(
                AssignmentCall(self.module, self.attribute, self.assigner, number, repeat, image, own, outcome)
            )


def _images_of(arguments: Mapping[str, Any], result: Any) -> list[tuple[Mapping[str, Any], Any]]:
    """Split a call into the arguments and the outcome of each image, named as for a single one."""
    if hasattr(result, "batch_pos_mask"):
        return _padded_images(arguments, result)
    if not isinstance(result, (list, tuple)):
        return [(arguments, result)]
    images: list[tuple[Mapping[str, Any], Any]] = []
    for index, outcome in enumerate(result):
        own: dict[str, Any] = {}
        for name, value in arguments.items():
            # One for each image; numbers are what all images share, such as the sizes of the levels.
            if isinstance(value, (list, tuple)) and len(value) == len(result) and not isinstance(value[0], int):
                own[_singular(name)] = value[index]
            else:
                own[name] = value
        images.append((own, outcome))
    return images


def _singular(name: str) -> str:
    """What an argument that lists images is called where there is one image: ``pred_list``, ``pred_instances``."""
    if "ignore" in name:
        return "gt_instances_ignore"
    if "meta" in name:
        return "img_meta"
    return {"pred": "pred_instances", "gt": "gt_instances"}.get(name.split("_")[0], name)


def _padded_images(arguments: Mapping[str, Any], result: Any) -> list[tuple[Mapping[str, Any], Any]]:
    """Split a batch of static shapes, an ``AscendAssignResult``; boxes without area at the end are padding."""
    priors, gt_boxes = arguments["pred_instances"], arguments["gt_instances"]
    regions, labels = arguments.get("gt_instances_ignore"), arguments.get("batch_gt_labels")
    matched = result.batch_anchor_gt_indes + 1
    gt_inds = torch.where(result.batch_pos_mask > 0, matched, torch.where(result.batch_neg_mask > 0, 0, -1))
    images: list[tuple[Mapping[str, Any], Any]] = []
    for index, boxes in enumerate(gt_boxes):
        real = (boxes[:, 2:] > boxes[:, :2]).all(dim=1).nonzero()
        count = int(real[-1]) + 1 if len(real) else 0
        truths = SimpleNamespace(bboxes=boxes[:count], labels=None if labels is None else labels[index, :count])
        ignored = None if regions is None else SimpleNamespace(bboxes=regions[index])
        own = {
            "pred_instances": SimpleNamespace(priors=priors[index]),
            "gt_instances": truths,
            "gt_instances_ignore": ignored,
        }
        images.append((own, SimpleNamespace(gt_inds=gt_inds[index], max_overlaps=result.batch_max_overlaps[index])))
    return images


def _are_samples(value: Any) -> bool:
    """Whether an argument is the data samples of a batch."""
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(hasattr(item, "gt_instances") or hasattr(item, "video_data_samples") for item in value)
    )


def _frames(samples: Iterable[Any]) -> Iterator[Any]:
    """The data samples of all images: of a video, those of its frames."""
    for sample in samples:
        yield from getattr(sample, "video_data_samples", [sample])


def image_of(pixels: Any, sample: Any) -> tuple[Any, Any, int]:
    """Pixels, data sample and number of one image of a batch; of several frames of a video, those of the key frame.

    Args:
        pixels: (C, H, W), or (T, C, H, W) of T frames.
        sample: a ``DetDataSample``, or a ``TrackDataSample`` of T frames.
    """
    frames = getattr(sample, "video_data_samples", None)
    if frames is None:
        return pixels, sample, 0
    number = sample.key_frames_inds[0]
    return pixels[number], frames[number], number


def _image_info(index: int, sample: Any) -> ImageInfo:
    shape = getattr(sample, "img_shape", None)
    return ImageInfo(
        index,
        getattr(sample, "img_id", None),
        getattr(sample, "img_path", None),
        None if shape is None else tuple(shape[:2]),
    )


def _mark_of(carrier: Any) -> ImageInfo | None:
    """The image that a data sample, its ground truths or its dictionary of meta information is marked with."""
    return carrier.get(_MARK) if isinstance(carrier, Mapping) else getattr(carrier, _MARK, None)
