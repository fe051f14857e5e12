"""What every assigner has: options, errors that name it, batches, and its place in the registries."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn, TypedDict

from torch import Tensor

from visdet_assigners.assigners import forms
from visdet_assigners.assigners.compiling import Mode, Result, compiled
from visdet_assigners.assignment import AssignResult
from visdet_assigners.errors import AssignerInputError, image_of
from visdet_assigners.functional.blocks import static_shapes
from visdet_assigners.functional.geometry import UPRIGHT, Geometry
from visdet_assigners.functional.tensors import as_tensor
from visdet_assigners.functional.validity import Kind
from visdet_assigners.inputs import Inputs, warn_once
from visdet_assigners.options import (
    check_names,
    number,
    one_of,
    signature_of_init,
    signature_with,
    whole_number,
)
from visdet_assigners.registry import adapt_heads, adopt
from visdet_assigners.settings import Policy

PREDICTING = "RPN, RetinaNet, SSD, ATSS, GFL, PAA, FSAF, FCOS (AssignedFCOSHead), DDOD, TOOD, YOLOX, RTMDet, YOLOF"
"""Heads of mmdet that predict a box for each prior before they assign, see configs/heads.md."""


class Common(TypedDict, total=False):
    """Options that every assigner takes as keywords; see `BaseAssigner`."""

    memory_budget: int | None
    compile: bool | Mode
    deterministic: bool | None
    on_nonfinite: Policy | None


class BaseAssigner(ABC):
    """An assigner marks each prior of an image as positive for one ground truth, as negative, or as ignored.

    Errors name the assigner, the field and, where it is known, the image.  Values are checked on a CPU and under
    ``on_nonfinite='raise'``: on a device a check synchronises with it.

    Args:
        memory_budget: bytes that the temporaries of one block may take; the package's budget if None, see `settings`.
        compile: whether ``torch.compile`` compiles the assignment, which needs a compiler and half a minute at the
            first call; without one it says so once and goes on uncompiled.  One graph serves any number of ground
            truths, in one block: the budget doesn't bound it.  Without effect where the work is done on the host or
            the result has no fixed size: the Hungarian ones, CenterRegion, MultiInstance; and for boxes that their own
            class is asked about.  'reduce-overhead' has a CUDA device record the graph once for each number of priors
            and each power of two of ground truths, to which they are padded, and replay it from then on: for few sizes
            of images.  Uniform, whose result has an entry for each ground truth, takes it as True.
        deterministic: whether ties are ordered by index, the same on every device, at every block size and for any
            number of threads; as the package is set if None, see `settings`.  Costs a second search for the nearest or
            cheapest priors; without it ties come out as in mmdet.
        on_nonfinite: what becomes of NaN, infinite numbers and invalid boxes.  'raise' names the field, the place
            and the image; on a device that is one synchronisation a call.  'replace' goes on: they are never matched,
            and nothing else changes.  As the package is set if None, see `settings`.

    Every assigner takes these as keywords.

    Raises:
        ValueError: ``memory_budget`` isn't positive, ``on_nonfinite`` is neither, or there is no such option.
    """

    reads: ClassVar[Mapping[str, Kind]] = {}
    """Fields of the predictions that it reads, and what they hold."""
    knobs: ClassVar[str] = ""
    """What to change where objects get too few positives, for reports."""
    heads: ClassVar[str] = f"{PREDICTING}, VFNet, YOLOv3, SABL, RepPoints"
    """Heads that can feed it, for errors."""
    keeps_gradient: ClassVar[bool] = False
    """Whether results carry gradients of the predictions."""
    matches_on_host: ClassVar[bool] = False
    """Whether what is not finite shows on the host anyway, so that raising is the default on a device, too."""
    mmdet2: ClassVar[forms.Names | None] = None
    """Arguments of mmdet 2's call on tensors, in its order, see `forms`; None where mmdet 2 had no such class."""
    warned_of_memory = False
    """Whether this assigner has warned that a device ran out of memory."""

    def __init__(
        self,
        memory_budget: int | None = None,
        compile: bool | Mode = False,
        deterministic: bool | None = None,
        on_nonfinite: Policy | None = None,
    ) -> None:
        if memory_budget is not None and memory_budget < 1:
            self.fail(f"memory_budget is {memory_budget}; give a positive number of bytes")
        self.memory_budget = memory_budget
        if isinstance(compile, str):
            self.option_of("compile", compile, Mode)
        self.compile = compile
        self.deterministic = deterministic
        if on_nonfinite is not None:
            self.option_of("on_nonfinite", on_nonfinite, Policy)
        self.on_nonfinite = on_nonfinite

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            signature = signature_of_init(cls)
            if "common" in signature.parameters:
                parent = next(base for base in cls.__mro__[1:] if "__init__" in vars(base))
                signature = signature_with(signature, inspect.signature(parent))
            cls.__signature__ = signature  # type: ignore[attr-defined]

    def __new__(cls, *args: Any, **kwargs: Any) -> BaseAssigner:  # noqa: D102
        parameters = inspect.signature(cls).parameters
        if kwargs and not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            check_names(cls.__name__, kwargs, parameters)
        adopt(cls)
        adapt_heads()
        return super().__new__(cls)

    @classmethod
    def reads_of(cls, assigner: Any) -> Mapping[str, Kind]:
        """The fields that an assigner of this name reads, ours or mmdet's, with its options."""
        return cls.reads

    def from_mmdet2(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Turn the values of mmdet 2's call, by argument or field of ours, into those of the call on instances."""
        return fields

    @abstractmethod
    def assign(self, *args: Any, **kwargs: Any) -> AssignResult:
        """Assign the priors of one image; the arguments are mmdet's for the class of the same name."""

    def assign_batch(
        self,
        pred_list: Sequence[Any],
        gt_list: Sequence[Any],
        ignore_list: Sequence[Any] | None = None,
        img_metas: Sequence[Mapping[str, Any] | None] | None = None,
        **shared: Any,
    ) -> list[AssignResult]:
        """Assign B images; equal to ``assign`` for each.

        Args:
            pred_list: ``pred_instances`` of each image.
            gt_list: ``gt_instances`` of each image.
            ignore_list: ``gt_instances_ignore`` of each image, or None.
            img_metas: ``img_meta`` of each image, or None.
            **shared: further arguments of ``assign``, the same for all images, as ``num_level_priors``.
        """
        images = self.zip_images(pred_list, gt_list, ignore_list, img_metas)
        return [
            self.assign(pred_instances=pred, gt_instances=gt, gt_instances_ignore=ignore, img_meta=meta, **shared)
            for pred, gt, ignore, meta in images
        ]

    def zip_images(self, pred_list: Sequence[Any], *others: Sequence[Any] | None) -> list[tuple[Any, ...]]:
        """Turn lists over images into what each image has, None where a list is None.

        Raises:
            ValueError: the lists have different lengths.
        """
        lengths = [len(pred_list), *(len(other) for other in others if other is not None)]
        if len(set(lengths)) > 1:
            self.fail(f"assign_batch got lists of different lengths: {lengths}; each image needs one of each")
        return list(zip(pred_list, *([None] * len(pred_list) if other is None else other for other in others)))

    def inputs(self, *sources: Any) -> Inputs:
        """Begin to read an image, which is named in one of the sources: meta data, or instances with some."""
        return Inputs(type(self).__name__, self.on_nonfinite, self.matches_on_host, sources, self.heads)

    def run(self, function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        """Call a function without its checks, since inputs were checked when read; compiled if ``compile=True``.

        Classes of boxes that are asked are foreign code, which no graph holds: with them nothing is compiled.
        """
        function = getattr(function, "__wrapped__", function)
        if not self.compile or any(isinstance(value, Geometry) and value is not UPRIGHT for value in args):
            return function(*args, **kwargs)
        return compiled(function, "reduce-overhead" if self.replays() else None)(*args, **kwargs)

    def replays(self) -> bool:
        """Whether the compiled work is recorded and replayed, on ground truths that are padded; a subclass may."""
        return False

    # ------------------------------------------------------------------------------------------- options and errors

    def fail(self, message: str, *sources: Any) -> NoReturn:
        """Raise ``AssignerInputError`` with the name of the assigner in front and of the image behind."""
        raise AssignerInputError(type(self).__name__, message, image=image_of(sources))

    def warn_once(self, kind: str, message: str) -> None:
        """Warn with the name of the assigner in front, once for each kind."""
        warn_once(type(self).__name__, kind, message)

    def count_of(self, name: str, value: Any, least: int = 1) -> int:
        """Check an option that is a whole number, see `options.whole_number`."""
        return whole_number(type(self).__name__, name, value, least)

    def number_of(self, name: str, value: Any, **limits: Any) -> Any:
        """Check an option that is a number, see `options.number`."""
        return number(type(self).__name__, name, value, **limits)

    def option_of(self, name: str, value: Any, literal: Any) -> Any:
        """Check an option that is one of a few words, see `options.one_of`."""
        return one_of(type(self).__name__, name, value, literal)


# Of a class with both, inspect takes the signature of __new__.
BaseAssigner.__signature__ = signature_of_init(BaseAssigner)  # type: ignore[attr-defined]


def is_on_device(value: Any) -> bool:
    """Whether a field, tensor or boxes, lies on a device, where shapes may not depend on data."""
    value = as_tensor(value)
    return isinstance(value, Tensor) and static_shapes(value.device)
