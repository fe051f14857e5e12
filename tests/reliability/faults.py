"""The faults: how an input looks, on whom it is tried, what mmdet makes of it, and what is right.

The letters of mmdet 3.5.1 (of 2.28.2 for AscendMaxIoU) were found with torch 2.13 on scenes of 640 x 640 pixels with
8,400 priors: R right, E a clear error, X a crash that names nothing, W silently wrong, O over the memory budget, - does
not apply; w counts as wrong but is documented behaviour of mmdet's, which is kept.  They stand in the order of the
assigners: MI AM AT TA, HU MH SO GR, UN RE CR PT, AS DS TH MU.

One table, hence the length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from mmdet.structures.bbox import HorizontalBoxes

from reliability import judges
from reliability.judges import Judge
from reliability.subjects import BOXES, CROWDS, OBJECTS, SUBJECTS, Scene, Subject, tokens

NAN, INF = float("nan"), float("inf")
BAD = 2
"""The ground truth that is spoilt."""
Spoil = Callable[[Subject, Scene], None]


ALIKE = {
    "SR": ("AT", ("B10", "G03")),
    "RK": ("MI", ("G02", "G04")),
    "HI": ("MI", ("G02", "G04")),
    "PO": ("SO", ("G03", "G05")),
    "SC": ("AT", ("G03",)),
}
"""Assigners that mmdet lacks: another one that reads the same, and faults that don't apply all the same."""


@dataclass(frozen=True)
class Fault:
    """One kind of bad or extreme input.

    Attributes:
        number: its name, a letter for the group and two digits.
        what: how the input looks.
        mmdet: mmdet's letters, see above.
        spoil: changes a scene.
        judge: the oracle where an answer is required; None where an error is.
        names: what the text of the error must match; the fields of the subject stand in braces.
        keeps: codes of the assigners whose answer is mmdet's documented one, and is kept.
        warns: what the one warning must match; with ``keeps`` of those assigners alone.
        errors: codes of assigners that must refuse although others must not.
        costs: whether match costs are tried, too.
        constructor: whether it is the constructor that refuses or warns.
        oversized: whether peak memory is what counts.
    """

    number: str
    what: str
    mmdet: str
    spoil: Spoil
    judge: Judge | None = None
    names: str = ""
    keeps: str = ""
    warns: str = ""
    errors: str = ""
    costs: bool = False
    constructor: bool = False
    oversized: bool = False

    def letter_of_mmdet(self, subject: Subject) -> str:
        """What mmdet makes of it; for an assigner that mmdet has not, "?" where it applies."""
        letters = self.mmdet.replace(" ", "").replace("·", "")
        codes = [each.code for each in SUBJECTS]
        if subject.code in ALIKE:
            model, without = ALIKE[subject.code]
            own = "-" if self.number[:3] in without else letters[codes.index(model)]
            return "-" if own == "-" else "?"
        return letters[codes.index(subject.code)]

    def applies(self, subject: Subject) -> bool:
        """Whether the subject reads what is spoilt."""
        if subject in SUBJECTS:
            return self.letter_of_mmdet(subject) != "-"
        model = SUBJECTS[5] if subject.truth == "masks" else SUBJECTS[4]
        if not self.costs or self.letter_of_mmdet(model) == "-":
            return False
        scene = subject.scene()
        try:
            self.spoil(subject, scene)
        except KeyError:  # the cost doesn't read the field
            return False
        return True

    def required(self, subject: Subject) -> str:
        """R a right answer, E an error that names things, K mmdet's documented behaviour."""
        if subject.code in self.keeps.split():
            return "K"
        return "E" if self.judge is None or subject.code in self.errors.split() else "R"


# ------------------------------------------------------------------------------------------------ how a scene is spoilt


def each(*spoils: Spoil) -> Spoil:
    """One after another."""

    def spoil(subject: Subject, scene: Scene) -> None:
        for one in spoils:
            one(subject, scene)

    return spoil


def no_objects(subject: Subject, scene: Scene) -> None:
    keep_objects(scene, slice(0))


def keep_objects(scene: Scene, rows: Any) -> None:
    scene.gt = {name: value[rows] for name, value in scene.gt.items()}


def no_priors(subject: Subject, scene: Scene) -> None:
    scene.pred = {name: value[:0] for name, value in scene.pred.items()}
    scene.levels = [0] * len(scene.levels)


def flat_empty_truth(subject: Subject, scene: Scene) -> None:
    no_objects(subject, scene)
    scene.gt[subject.truth] = torch.zeros(0)


def float_empty_labels(subject: Subject, scene: Scene) -> None:
    no_objects(subject, scene)
    scene.gt["labels"] = torch.empty(0)


def few_priors(objects: int, *centers_of: int | None) -> Spoil:
    """So many objects, and for each number a prior that coincides with that object; None stands for one far away."""

    def spoil(subject: Subject, scene: Scene) -> None:
        keep_objects(scene, slice(objects))
        found = torch.tensor([[310.0, 5.0, 318.0, 13.0] if one is None else BOXES[one].tolist() for one in centers_of])
        level = 0  # of which object 0 has the size
        for name, value in scene.pred.items():
            scene.pred[name] = value[: len(found)].clone()
        for name in {*subject.priors, subject.boxes} & {"priors", "bboxes", "decoder_priors"}:
            if name == "priors" and subject.code in ("SO", "PT", "DS", "PO"):
                x, y = (found[:, 0] + found[:, 2]) / 2, (found[:, 1] + found[:, 3]) / 2
                scene.pred[name] = torch.stack([x, y, *[torch.full_like(x, 16.0)] * 2], dim=1)
            else:
                scene.pred[name] = found.clone()
        if "approxs" in subject.priors:
            scene.pred["approxs"] = found[:, None].repeat(1, 2, 1)
        if "responsible_flags" in scene.pred:
            scene.pred["responsible_flags"] = torch.ones(len(found), dtype=torch.bool)
        if subject.scores:
            logits = torch.full_like(scene.pred["scores"], -4.0)
            for row, one in enumerate(centers_of):
                if one is not None:
                    logits[row, one] = 4.0
            scene.pred["scores"] = logits if subject.code in ("HU", "MH", "DS") else logits.sigmoid()
        if subject.truth == "masks":
            for row, one in enumerate(centers_of):
                scene.pred["masks"][row] = -8.0 if one is None else 16 * scene.gt["masks"][one] - 8
        scene.levels = [len(found) if index == level else 0 for index in range(len(scene.levels))]

    return spoil


def one_object(even: bool) -> Spoil:
    def spoil(subject: Subject, scene: Scene) -> None:
        keep_objects(scene, slice(1))
        count = len(next(iter(scene.pred.values())))
        if (count % 2 == 0) != even:
            scene.pred = {name: value[:-1] for name, value in scene.pred.items()}
            scene.levels = [*scene.levels[:-1], scene.levels[-1] - 1] if scene.levels else ()

    return spoil


def empty_level(subject: Subject, scene: Scene) -> None:
    """The last level is there but has no priors."""
    last = scene.levels[-1]
    scene.pred = {name: value[:-last] for name, value in scene.pred.items()}
    scene.levels = [*scene.levels[:-1], 0]
    scene.feature_sizes = [*scene.feature_sizes[:-1], (0, 0)]


def without_last_level(subject: Subject, scene: Scene) -> None:
    scene.levels, scene.feature_sizes = scene.levels[:-1], scene.feature_sizes[:-1]
    scene.strides = scene.strides[:-1]
    if subject.code == "SR":
        scene.options |= dict(regress_ranges=((-1, 64), (64, 128), (128, 256), (256, 512)), strides=scene.strides)


def levels_do_not_sum(subject: Subject, scene: Scene) -> None:
    scene.levels = [*scene.levels[:-1], 0] if subject.code == "SR" else scene.levels[:-1]


def into_truth(value: float) -> Spoil:
    """A value into one coordinate of a box or one pixel of a mask."""

    def spoil(subject: Subject, scene: Scene) -> None:
        if subject.truth in ("labels",):
            raise KeyError(subject.truth)
        scene.gt[subject.truth][BAD].view(-1)[2] = value

    return spoil


def into_prior(value: float) -> Spoil:
    return lambda subject, scene: into(scene.pred["priors"], judges.positive_row(subject), 0, value)


def into_boxes(value: float) -> Spoil:
    return lambda subject, scene: into(scene.pred[field(subject.boxes)], judges.positive_row(subject), 1, value)


def into_scores(value: float, whole_row: bool = True) -> Spoil:
    columns = slice(None) if whole_row else 3
    return lambda subject, scene: into(scene.pred[field(subject.scores)], judges.positive_row(subject), columns, value)


def into(tensor: torch.Tensor, row: int, column: Any, value: float) -> None:
    tensor[row].view(-1)[column] = value


def field(name: str | None) -> str:
    if name is None:
        raise KeyError("the subject doesn't read it")
    return name


def masked_class(subject: Subject, scene: Scene) -> None:
    """As heads do with words that a text lacks; no object is of the class."""
    if subject.code in ("TA", "SO"):
        raise KeyError("the subject reads probabilities")
    scene.pred[field(subject.scores)][:, 7] = -INF


def all_diverged(subject: Subject, scene: Scene) -> None:
    for name in (subject.boxes, subject.scores):
        if name is not None:
            scene.pred[name].fill_(NAN)


def into_region(value: float) -> Spoil:
    def spoil(subject: Subject, scene: Scene) -> None:
        scene.ignore = {"bboxes": torch.tensor([[10.0, 10.0, 50.0, 50.0], [100.0, 60.0, value, 200.0]])}
        if subject.code == "MU":
            scene.ignore["labels"] = torch.tensor([-1, -1])

    return spoil


def no_stride(subject: Subject, scene: Scene) -> None:
    scene.pred["priors"][judges.positive_row(subject), 2:] = 0


def truth_is(box: list[float]) -> Spoil:
    """One ground truth has this box, or an empty mask."""

    def spoil(subject: Subject, scene: Scene) -> None:
        if subject.truth == "masks":
            scene.gt["masks"][BAD] = 0
        else:
            scene.gt["bboxes"][BAD] = torch.tensor(box)

    return spoil


def tiny_truth(subject: Subject, scene: Scene) -> None:
    truth_is([150.3, 80.3, 150.32, 80.32])(subject, scene)
    if subject.truth == "masks":
        scene.gt["masks"][BAD, 3, 4] = 1


def on_eighths(subject: Subject, scene: Scene) -> None:
    """Coordinates that stay exact when a power of two is added."""
    for fields in (scene.pred, scene.gt):
        for name in located(subject) & fields.keys():
            fields[name] = (fields[name] * 8).round() / 8


def far_away(subject: Subject, scene: Scene) -> None:
    """Everything lies 2**20 pixels to the right and below, as in maps of the earth."""
    on_eighths(subject, scene)
    for fields in (scene.pred, scene.gt):
        for name in located(subject) & fields.keys():
            places = 2 if name == "priors" and subject.code in ("SO", "PT", "DS", "PO") else 4
            fields[name][..., :places] += 2.0**20


def located(subject: Subject) -> set[Any]:
    return {*subject.priors, subject.boxes, subject.truth} - {"masks", "labels", None}


def prior_is(change: Callable[[torch.Tensor], torch.Tensor]) -> Spoil:
    def spoil(subject: Subject, scene: Scene) -> None:
        row = judges.positive_row(subject)
        for name in subject.priors:
            scene.pred[name][row] = change(scene.pred[name][row])

    return spoil


def predicted_is(change: Callable[[torch.Tensor], torch.Tensor]) -> Spoil:
    def spoil(subject: Subject, scene: Scene) -> None:
        row = judges.positive_row(subject)
        scene.pred[field(subject.boxes)][row] = change(scene.pred[field(subject.boxes)][row])

    return spoil


def point_of(box: torch.Tensor) -> torch.Tensor:
    return box[..., :2].repeat_interleave(2, -1)[..., [0, 2, 0, 2]]


def inverted(box: torch.Tensor) -> torch.Tensor:
    return box[..., [2, 3, 0, 1]]


def twice(other_label: bool) -> Spoil:
    def spoil(subject: Subject, scene: Scene) -> None:
        scene.gt = {name: torch.cat([value, value[BAD : BAD + 1]]) for name, value in scene.gt.items()}
        if other_label:
            scene.gt["labels"][-1] = 7

    return spoil


def identical_priors(subject: Subject, scene: Scene) -> None:
    for name in subject.priors:
        start = judges.positive_row(subject) // 64 * 64
        scene.pred[name][start : start + 64] = scene.pred[name][judges.positive_row(subject)].clone()


def label_is(value: Any) -> Spoil:
    def spoil(subject: Subject, scene: Scene) -> None:
        if isinstance(value, float):
            scene.gt["labels"] = scene.gt["labels"].float()
        scene.gt["labels"][BAD] = value

    return spoil


def class_beyond(subject: Subject, scene: Scene) -> None:
    if subject.scores is None or subject.truth == "positive_maps":
        raise KeyError("the subject compares no labels with scores")
    scene.gt["labels"][BAD] = OBJECTS.num_classes


def labels_as(change: Callable[[torch.Tensor], torch.Tensor]) -> Spoil:
    def spoil(subject: Subject, scene: Scene) -> None:
        scene.gt["labels"] = change(scene.gt["labels"])

    return spoil


def no_labels(subject: Subject, scene: Scene) -> None:
    del scene.gt["labels"]


def in_containers(*sides: str) -> Spoil:
    """Boxes in mmdet's own class."""

    def spoil(subject: Subject, scene: Scene) -> None:
        names = located(subject) - {"approxs"}
        found = False
        for side in sides:
            fields = getattr(scene, side)
            for name in names & fields.keys():
                if fields[name].shape[-1] == 4 and not (name == "priors" and subject.code in ("SO", "DS", "PT")):
                    fields[name], found = HorizontalBoxes(fields[name]), True
        if not found:
            raise KeyError("no boxes")

    return spoil


def not_contiguous(subject: Subject, scene: Scene) -> None:
    for fields in (scene.pred, scene.gt):
        for name, value in fields.items():
            fields[name] = value.repeat_interleave(2, dim=0)[::2]


def cast(*dtypes: torch.dtype, sides: tuple[str, ...] = ("pred", "gt")) -> Spoil:
    """Floating fields through these types."""

    def spoil(subject: Subject, scene: Scene) -> None:
        for fields in (getattr(scene, side) for side in sides):
            for name, value in fields.items():
                for dtype in dtypes if value.is_floating_point() else ():
                    fields[name] = fields[name].to(dtype)

    return spoil


def under_autocast(subject: Subject, scene: Scene) -> None:
    scene.context = lambda: torch.autocast("cpu", torch.bfloat16)


def whole_numbers(dtype: torch.dtype) -> Spoil:
    """Boxes of whole pixels, masks of 0 and 1."""

    def spoil(subject: Subject, scene: Scene) -> None:
        if subject.truth == "labels":
            raise KeyError("no ground truth but its label")
        value = scene.gt[subject.truth].round()
        kind = dtype if dtype.is_floating_point or subject.truth == "bboxes" else torch.bool
        scene.gt[subject.truth] = value.to(kind)

    return spoil


def on_other_device(subject: Subject, scene: Scene) -> None:
    scene.gt = {name: value.to("meta") for name, value in scene.gt.items()}


def truth_as(change: Callable[[torch.Tensor], Any]) -> Spoil:
    def spoil(subject: Subject, scene: Scene) -> None:
        if subject.truth == "labels":
            raise KeyError("no ground truth but its label")
        scene.gt[subject.truth] = change(scene.gt[subject.truth])

    return spoil


def one_flat_object(subject: Subject, scene: Scene) -> None:
    keep_objects(scene, slice(1))
    truth_as(lambda value: value[0])(subject, scene)


def with_gradient(subject: Subject, scene: Scene) -> None:
    for name in (field(subject.boxes), subject.scores):
        if name is not None:
            scene.pred[name] = scene.pred[name].clone().requires_grad_()


def no_predictions(subject: Subject, scene: Scene) -> None:
    del scene.pred[subject.boxes or "priors" if not subject.priors else "priors"]


def no_scores(subject: Subject, scene: Scene) -> None:
    del scene.pred[field(subject.scores)]


def one_score_less(subject: Subject, scene: Scene) -> None:
    if subject.boxes is None:
        raise KeyError("scores alone have any length")
    scene.pred[field(subject.scores)] = scene.pred[field(subject.scores)][:-1]


def logits_for_probabilities(subject: Subject, scene: Scene) -> None:
    scene.pred["scores"] = scene.pred["scores"].logit()


def told(meta: Any) -> Spoil:
    def spoil(subject: Subject, scene: Scene) -> None:
        if subject.code in ("CC", "FL", "IU"):
            raise KeyError("the cost reads no image size")
        scene.meta = meta if meta is None else {**meta, "img_path": "scene.png"}

    return spoil


def nothing(subject: Subject, scene: Scene) -> None:
    """The clean scene."""


def one_crowd(subject: Subject, scene: Scene) -> None:
    scene.ignore = {"bboxes": CROWDS.clone()}
    if subject.code == "MU":
        scene.ignore["labels"] = torch.tensor([-1])


def no_crowds(subject: Subject, scene: Scene) -> None:
    one_crowd(subject, scene)
    assert scene.ignore is not None
    scene.ignore = {name: value[:0] for name, value in scene.ignore.items()}


def option(**values: Any) -> Spoil:
    return lambda subject, scene: scene.options.update(values)


def no_candidates(subject: Subject, scene: Scene) -> None:
    scene.options[field(subject.counts)] = 0


def weight_is_nan(subject: Subject, scene: Scene) -> None:
    assert subject.weight is not None
    scene.options.update(subject.weight(NAN))


def many(objects: int, image: tuple[int, int], ratios: int, queries: int) -> Spoil:
    """So many small objects of 80 classes under the priors of an image of this size."""
    return lambda subject, scene: judges.fill(subject, scene, objects, image, ratios, queries)


# --------------------------------------------------------------------------------------------------------- the faults

TRUTH = r"gt_instances\.{truth}\[2(, \d+)*\]"
ALL_TRUTH = r"gt_instances\.{truth}"
PREDICTED = r"{boxes}\[{row}(, \d+)*\]"
SCORES = r"scores\[{row}, \d+\]"
LABELS = r"gt_instances\.labels"
NOT_USED = r"gt_instances_ignore.* not used"
FAINT = r"has no area"

FAULTS = (
    # A. Cardinality
    Fault("A01", "no ground truths: boxes (0, 4), labels (0,)", "RRRR RRRR RRRR XRRW", no_objects, judges.background),
    Fault("A02", "no ground truths, labels a float tensor", "RRRX RRRR RRRR XRXW", float_empty_labels,
          judges.background),
    Fault("A03", "no ground truths, boxes of shape (0,)", "XRXX RRRX RRXR XRXX", flat_empty_truth, judges.background),
    Fault("A04", "no priors or predictions", "RRRR RRRR RRRR XRXR", no_priors, judges.empty),
    Fault("A05", "neither ground truths nor priors", "RRRR RRRR RRRR XRRR", each(no_objects, no_priors), judges.empty),
    Fault("A06", "one prior, on the one ground truth", "RRWR RRRR X-RX RRRW", few_priors(1, 0), judges.coincides),
    Fault("A07", "two priors, one coincides", "RRwR RRRR X-RX RRRX", few_priors(1, 0, None), judges.coincides,
          keeps="AT SC"),
    Fault("A08", "six ground truths, two predictions", "RRRR RRRR X-RX RRWR", few_priors(6, 0, 1), judges.crowded),
    Fault("A09", "one ground truth", "RRRR RRRR RRRR RRRX", one_object(even=True), judges.like_mmdet),
    Fault("A10", "one ground truth, an odd number of priors", "RRRR RRRR R-RR RRRW", one_object(even=False),
          judges.like_mmdet),
    Fault("A11", "an empty level", "--R- ---- -R-- ----", empty_level,
          judges.same_as(each(empty_level, without_last_level))),
    Fault("A12", "level sizes don't sum to the number of priors", "--W- ---- -X-- ----", levels_do_not_sum,
          names=r"sum\(num_level_(priors|anchors)\) is \d+ but there are \d+ priors"),
    # B. Not finite
    Fault("B01", "NaN in a ground truth box or mask", "WWRR XXWW WXRR WWXW", into_truth(NAN), names=TRUTH + " is nan",
          costs=True),
    Fault("B02", "+inf there", "WWRR XXWR RRRR RWXR", into_truth(INF), names=TRUTH + " is inf", costs=True),
    Fault("B03", "NaN in a prior", "RRRR --RR WRRR RR-W", into_prior(NAN), names=r"priors\[{row}, 0\] is nan"),
    Fault("B04", "+inf there", "RRRR --RR RRRR RR-R", into_prior(INF), names=r"priors\[{row}, 0\] is inf"),
    Fault("B05", "NaN in a predicted box or mask", "---W XXW- R--- -WX-", into_boxes(NAN), names=PREDICTED + " is nan",
          costs=True),
    Fault("B06", "+inf there; a mask's probability is 1 then", "---R XXR- R--- -RX-", into_boxes(INF),
          judges.like_mmdet, names=PREDICTED + " is inf", errors="TA HU MH SO UN DS TH PO L1 IU CE HO PM", costs=True),
    Fault("B07", "NaN in a whole row of scores", "---W XXX- ---- -RX-", into_scores(NAN), names=SCORES + " is nan",
          costs=True),
    Fault("B08", "one logit +inf", "---- RX-- ---- -RR-", into_scores(INF, whole_row=False), judges.like_mmdet,
          names=SCORES + " is inf", errors="MH DS CC", costs=True),
    Fault("B09", "all predicted boxes and scores NaN", "---W XXX- W--- -WX-", all_diverged,
          names=r"(boxes|priors|scores|masks)\[0, 0.* training has diverged"),
    Fault("B10", "NaN in one of two ignore boxes", "WWW- ---- -XR- X--W", into_region(NAN),
          names=r"gt_instances_ignore(\.bboxes\[1, 2\] is nan| .*no ignore regions)"),
    Fault("B11", "stride 0 in a prior", "---- --R- ---X -R--", no_stride,
          names=r"priors\[{row}\] .*stride.* positive"),
    Fault("B12", "the logits of a class that is masked are -inf", "---- RR-- ---- -WR-", masked_class,
          judges.like_mmdet, names=r"scores\[0, 7\] is -inf", errors="DS", costs=True),
    # C. Geometry
    Fault("C01", "a ground truth of no area: a point, an empty mask", "WWRR RRWR RRRW RWRR",
          truth_is([150.0, 80.0, 150.0, 80.0]), judges.dropped, warns=FAINT),
    Fault("C02", "a ground truth of no width", "WWRR R-WR RRRW RWRR", truth_is([150.0, 60.0, 150.0, 100.0]),
          judges.dropped, warns=FAINT),
    Fault("C03", "an inverted ground truth", "WWRR R-WR RRRW RWRR", truth_is([180.0, 130.0, 120.0, 40.0]),
          names=r"gt_instances\.bboxes\[2\] is .* not x1 <= x2", costs=True),
    Fault("C04", "a half inverted ground truth", "WWRR R-WR RXRW RWRR", truth_is([180.0, 40.0, 120.0, 130.0]),
          names=r"gt_instances\.bboxes\[2\] is .* not x1 <= x2", costs=True),
    Fault("C05", "a ground truth wholly outside", "WWRR R-wR RRRw RwRR", truth_is([2000.0, 2000.0, 2060.0, 2075.0]),
          judges.dropped, keeps="SO DS PT"),
    Fault("C06", "a ground truth partly outside", "RRRR R-RR RRRR RRRR", truth_is([-30.5, 60.2, 40.1, 120.3]),
          judges.like_mmdet),
    Fault("C07", "a tiny ground truth, a mask of one pixel", "RRRR RRRR RRRR RRRR", tiny_truth, judges.like_mmdet),
    Fault("C08", "a ground truth of 1e20 pixels", "WWRR X-WR RRRW RWXR", truth_is([-1e20, -1e20, 1e20, 1e20]),
          names=TRUTH + " is -1e.20.* beyond", costs=True),
    Fault("C09", "everything shifted by 2**20 pixels", "RRRR R-RR W-RR RRRR", far_away,
          judges.nearly_same_as(on_eighths)),
    Fault("C10", "a prior of no area", "RRRR ---R RRR- R--R", prior_is(point_of), judges.like_mmdet),
    Fault("C11", "an inverted prior", "RRRW ---R RWR- R--R", prior_is(inverted),
          names=r"(priors|approxs)\[{row}(, 0)?\] is .* not x1 <= x2"),
    Fault("C12", "a predicted box of no area", "---R R-R- R--- -RR-", predicted_is(point_of), judges.like_mmdet),
    Fault("C13", "an inverted predicted box", "---R R-R- R--- -RW-", predicted_is(inverted), judges.never_wins),
    Fault("C14", "a ground truth twice", "RRRR RRRR RRRR RRRR", twice(other_label=False), judges.like_mmdet),
    Fault("C15", "a ground truth twice with two labels", "RRRR RRRR RRRR RRRR", twice(other_label=True),
          judges.like_mmdet),
    Fault("C16", "64 identical priors", "RRRR --RR R-RR RR-R", identical_priors, judges.like_mmdet),
    # D. Labels
    Fault("D01", "a label is the number of classes", "---X XWX- ---- -XX-", class_beyond,
          names=LABELS + r"\[2\] is 8 but scores have 8 classes", costs=True),
    Fault("D02", "a label is -1", "WWWW WWXW WWWW WXWW", label_is(-1), names=LABELS + r"\[2\] is -1", costs=True),
    Fault("D03", "float labels of whole numbers", "XXXX XXRX XXXX RRXR", labels_as(torch.Tensor.float),
          judges.same_as(nothing), costs=True),
    Fault("D04", "a float label of 1.5", "XXXX XXWX XXXX WWXW", label_is(1.5), names=LABELS + r"\[2\] is 1\.5",
          costs=True),
    Fault("D05", "int32 labels", "XXXX XXRX XXXX RRXR", labels_as(torch.Tensor.int), judges.same_as(nothing),
          costs=True),
    Fault("D06", "labels of shape (M, 1)", "XXXX XXXX XXXX XXXX", labels_as(lambda labels: labels[:, None]),
          names=LABELS + r".* shape .*\(6, 1\)", costs=True),
    Fault("D07", "one label too few", "EEEE EEEE EEEE XEXE", labels_as(lambda labels: labels[:-1]),
          names=r"gt_instances has .*(6.*5|5.*6)"),
    Fault("D08", "no labels", "EEEE EEEE EEEE WEEE", no_labels, names=LABELS + " must be a tensor, got nothing",
          costs=True),
    # E. Types, shapes, devices
    Fault("E01", "ground truths in HorizontalBoxes", "RRXX X-XR XXXX RRXX", in_containers("gt"),
          judges.same_as(nothing), costs=True),
    Fault("E02", "priors or predictions in HorizontalBoxes", "RRXX X-RR XXX- RRXX", in_containers("pred"),
          judges.same_as(nothing), costs=True),
    Fault("E03", "tensors that are not contiguous", "RRRR RRRR RRRR RRRR", not_contiguous, judges.same_as(nothing),
          costs=True),
    Fault("E04", "everything in float16", "RWXX XXXR XRRR RXXR", cast(torch.float16),
          judges.same_as(cast(torch.float16, torch.float32)), costs=True),
    Fault("E05", "everything in bfloat16", "WWRW XXXR XWWW WXXW", cast(torch.bfloat16),
          judges.same_as(cast(torch.bfloat16, torch.float32)), costs=True),
    Fault("E06", "under torch.autocast to bfloat16", "RRRR RRRR RRRR RRRR", under_autocast, judges.same_as(nothing),
          costs=True),
    Fault("E07", "float64 ground truths, float32 priors", "RRRX RRXR XRRX RXRR", cast(torch.float64, sides=("gt",)),
          judges.same_as(nothing), costs=True),
    Fault("E08", "integer boxes, bool masks", "RRRR RRRR RRWR RRRR", whole_numbers(torch.int64),
          judges.same_as(whole_numbers(torch.float32)), costs=True),
    Fault("E09", "ground truths on another device", "EEEE EEEE EXEE EEEE", on_other_device,
          names=r"gt_instances.* on meta.* on cpu", costs=True),
    Fault("E11", "ground truth boxes of five columns", "RRRR X-RR XRXX RXXX",
          truth_as(lambda boxes: torch.cat([boxes, boxes[:, :1]], dim=1)), names=ALL_TRUTH + r".*\(6, 5\)"),
    Fault("E12", "ground truth boxes of three columns", "XXXX X-XX XXXW XXXX", truth_as(lambda boxes: boxes[:, :3]),
          names=ALL_TRUTH + r".*\(6, 3\)"),
    Fault("E13", "one ground truth of shape (4,)", "XXXX X-XX XXXX XXXX", one_flat_object,
          names=ALL_TRUTH + r".*\(4,\)"),
    Fault("E14", "NumPy boxes or masks", "XXXX XXXX XXXX XXXX", truth_as(lambda boxes: boxes.numpy()),
          names=ALL_TRUTH + ".* ndarray", costs=True),
    Fault("E15", "predictions with gradient", "---R RRW- R--- -WR-", with_gradient, judges.without_gradient),
    Fault("E16", "priors or predictions missing", "EEEE EEEE EEEE -EXE", no_predictions,
          names=r"(priors|boxes|masks)\b.*(got nothing|has no)"),
    Fault("E17", "scores missing; masks match without them, as in K-Net", "---E EEE- ---- -EX-", no_scores,
          judges.matched_once, names=r"scores must be a tensor, got nothing", errors="TA HU SO DS TH PO CC FL BF HO PM",
          costs=True),
    Fault("E18", "one row of scores too few", "---E EEE- ---- -EX-", one_score_less, names="different lengths.*scores"),
    Fault("E19", "logits where probabilities belong", "---W --X- ---- ----", logits_for_probabilities,
          names=r"scores.*probabilities"),
    Fault("E20", "no img_meta", "---- X--- -E-- --X-", told(None), names=r"img_meta.*img_shape"),
    Fault("E21", "img_shape of three numbers", "---- X--- -R-- --X-", told(dict(img_shape=(240, 320, 3))),
          judges.same_as(nothing)),
    Fault("E22", "img_shape (0, 0)", "---- X--- -W-- --X-", told(dict(img_shape=(0, 0))),
          names=r"img_shape.*positive"),
    Fault("E23", "the caller's tensors stay as they are", "RRRR RRRR RRRR RRRR", nothing, judges.like_mmdet,
          costs=True),
    # F. Ignore regions
    Fault("F01", "one crowd region", "RRRw --ww wXRw Xw-R", one_crowd, judges.not_negative_inside,
          keeps="TA SO GR UN PT DS SR PO", warns=NOT_USED, errors="RE", names=r"ignore regions"),
    Fault("F02", "ignore regions present but empty", "RRRR R-RR RXRR XRRR", no_crowds, judges.same_as(nothing)),
    # G. Configuration
    Fault("G01", "neg_iou_thr is a list", "WW-- ---R ---- W--X", option(neg_iou_thr=[0, 0.4]),
          judges.same_as(option(neg_iou_thr=(0, 0.4)))),
    Fault("G02", "neg_iou_thr is the int 1", "WW-- ---W ---- W--R", option(neg_iou_thr=1, pos_iou_thr=1.0),
          judges.same_as(option(neg_iou_thr=1.0, pos_iou_thr=1.0))),
    Fault("G03", "a count of candidates is 0", "--WX --W- W--W -WXX", no_candidates, names=r"{counts} is 0",
          constructor=True),
    Fault("G04", "neg_iou_thr .9 above pos_iou_thr .3", "ww-- ---w ---- w--w", option(neg_iou_thr=0.9, pos_iou_thr=0.3),
          judges.like_mmdet, keeps="MI AM GR AS MU", warns=r"neg_iou_thr.* above pos_iou_thr", constructor=True),
    Fault("G05", "the weight of a cost is NaN", "---- XXW- ---- -WX-", weight_is_nan, names=r"weight is nan",
          constructor=True, costs=True),
    # H. Scale
    Fault("H01", "1,500 ground truths, 8,400 priors, 80 classes", "RORR RROR RRRR RORR",
          many(1500, (640, 640), 1, 900), judges.bounded, oversized=True),
    Fault("H02", "200 ground truths, 205,000 priors, 80 classes", "OOOO --OO O-OR OO-O",
          many(200, (800, 1333), 3, 900), judges.bounded, oversized=True),
)  # fmt: skip

REPLACED = tuple(
    replace(fault, number=fault.number + "r", judge=judge, warns="never matched", errors="RE" * (fault.number == "B10"))
    for fault in FAULTS
    for judge in [judges.REPLACED.get(fault.number)]
    if judge is not None
)
"""Group B under ``on_nonfinite='replace'``."""
__all__ = ["FAULTS", "REPLACED", "Fault", "tokens"]
