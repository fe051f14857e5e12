"""What the Hungarian assigners promise of their own.

Three classes share the scenes, hence the length.
"""

import itertools

import pytest
import torch
from mmengine.structures import InstanceData

from assigners.cases import DINO
from scenes import Objects, draw_boxes, logits, proposals
from visdet_assigners import HungarianAssigner, MaskHungarianAssigner, TopkHungarianAssigner
from visdet_assigners.assigners.hungarian import hungarian
from visdet_assigners.match_costs import BaseMatchCost
from visdet_assigners.settings import using
from visdet_assigners.testing.measure import OperatorCounter

META = dict(img_shape=(100, 200), img_path="street.jpg")
BOXES = torch.tensor([[0.0, 0.0, 40.0, 40.0], [50.0, 50.0, 90.0, 90.0], [100.0, 10.0, 150.0, 60.0]])


@pytest.mark.parametrize(("num_preds", "num_gts"), [(5, 3), (3, 3), (3, 5), (1, 4), (6, 1)])
def test_no_other_matching_is_cheaper(num_preds, num_gts):
    for seed in range(20):
        cost = torch.randn(num_preds, num_gts, generator=torch.Generator().manual_seed(seed))
        index = hungarian(cost).gt_index
        matched = index >= 0
        assert matched.sum() == min(num_preds, num_gts)
        assert len(index[matched].unique()) == matched.sum()
        total = cost[matched, index[matched]].sum()
        if num_preds <= num_gts:
            pairs = [zip(range(num_preds), chosen) for chosen in itertools.permutations(range(num_gts), num_preds)]
        else:
            pairs = [zip(chosen, range(num_gts)) for chosen in itertools.permutations(range(num_preds), num_gts)]
        best = min(sum(cost[row, column] for row, column in pairing) for pairing in pairs)
        torch.testing.assert_close(total, best)


def prediction():
    return InstanceData(bboxes=BOXES.flip(0), scores=torch.zeros(3, 4))


def truth():
    return InstanceData(bboxes=BOXES[:2], labels=torch.tensor([1, 3]))


def test_boxes_find_their_objects():
    result = HungarianAssigner(dict(type="IoUCost")).assign(prediction(), truth())
    assert result.gt_inds.tolist() == [0, 2, 1]
    assert result.labels.tolist() == [-1, 3, 1]
    assert result.max_overlaps is None


def test_defaults_are_those_of_mmdet_2():
    names = [type(cost).__name__ for cost in HungarianAssigner().match_costs]
    assert names == ["ClassificationCost", "BBoxL1Cost", "IoUCost"]
    assert [cost.weight for cost in HungarianAssigner().match_costs] == [1, 1, 1]
    only = HungarianAssigner(cls_cost=dict(type="FocalLossCost", weight=2.0)).match_costs
    assert [type(cost).__name__ for cost in only] == ["FocalLossCost", "BBoxL1Cost", "IoUCost"]


def test_both_forms_at_once_are_refused():
    with pytest.raises(ValueError, match="match_costs and reg_cost are given; choose one form"):
        HungarianAssigner([dict(type="IoUCost")], reg_cost=dict(type="BBoxL1Cost"))
    with pytest.raises(ValueError, match="match_costs is empty"):
        HungarianAssigner([])


def test_the_field_and_the_image_are_named():
    pred = prediction()
    pred.bboxes[1, 2] = float("nan")
    with pytest.raises(ValueError, match=r"HungarianAssigner: pred_instances.bboxes\[1, 2\] is nan.*street.jpg"):
        HungarianAssigner([dict(type="ClassificationCost"), dict(type="IoUCost")]).assign(pred, truth(), META)


class Undefined:
    """A cost of somebody else's that is not finite though all fields are."""

    def __call__(self, pred_instances, gt_instances, img_meta):
        return torch.full((len(pred_instances), len(gt_instances)), float("inf"))


@pytest.mark.parametrize("way", ["0", "1"], ids=["host", "device"])
def test_the_cost_is_named_where_the_fields_are_right(way, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    with pytest.raises(ValueError, match=r"HungarianAssigner: Undefined\[0, 0\] is inf.*street.jpg"):
        HungarianAssigner([dict(type="ClassificationCost"), Undefined()]).assign(prediction(), truth(), META)


def test_image_size_is_needed_for_the_box_cost():
    with pytest.raises(ValueError, match=r"HungarianAssigner: img_meta\['img_shape'\] must be .*, got nothing"):
        HungarianAssigner(dict(type="BBoxL1Cost")).assign(prediction(), truth())
    three = HungarianAssigner(dict(type="BBoxL1Cost")).assign(prediction(), truth(), dict(img_shape=(100, 200, 3)))
    assert three.gt_inds.tolist() == [0, 2, 1]


@pytest.mark.parametrize("kind", ["ClassificationCost", "FocalLossCost"])
@pytest.mark.parametrize("label", [-1, 4])
def test_labels_beyond_the_scores_are_named(kind, label):
    gt = truth()
    gt.labels = torch.tensor([0, label])
    with pytest.raises(ValueError, match=rf"HungarianAssigner: gt_instances.labels\[1\] is {label}"):
        HungarianAssigner(dict(type=kind)).assign(prediction(), gt)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(type="BBoxL1Cost", box_format="cxcywh"), "BBoxL1Cost: box_format"),
        (dict(type="IoUCost", iou_mode="diou"), "IoUCost: iou_mode"),
        (dict(type="CrossEntropyLossCost", use_sigmoid=False), "CrossEntropyLossCost: only use_sigmoid=True"),
    ],
)
def test_wrong_options_of_costs_are_named(config, message):
    with pytest.raises((ValueError, NotImplementedError), match=message):
        HungarianAssigner(config)


def masks():
    target = torch.zeros(2, 4, 4)
    target[0, :2], target[1, 2:] = 1, 1
    return target


def test_masks_find_their_objects_with_and_without_scores():
    gt = InstanceData(labels=torch.tensor([1, 3]), masks=masks())
    pred = InstanceData(masks=8 * torch.stack([torch.zeros(4, 4), masks()[1], masks()[0]]) - 4)
    assigner = MaskHungarianAssigner(dice_cost=dict(type="DiceCost", pred_act=True, eps=1.0))
    assert assigner.assign(pred, gt).gt_inds.tolist() == [0, 2, 1]  # K-Net has no scores
    pred.scores = torch.zeros(3, 4)
    assert assigner.assign(pred, gt).gt_inds.tolist() == [0, 2, 1]


MASK_COSTS = [
    dict(type="ClassificationCost", weight=2.0),
    dict(type="CrossEntropyLossCost", weight=5.0, use_sigmoid=True),
    dict(type="DiceCost", weight=5.0, pred_act=True, eps=1.0),
]


def points_in_masks(num_preds: int = 30, num_gts: int = 7):
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (num_gts,), generator=g)
    gt = InstanceData(labels=labels, masks=(torch.rand(num_gts, 50, generator=g) < 0.3).long())
    pred = InstanceData(scores=torch.randn(num_preds, 4, generator=g), masks=torch.randn(num_preds, 50, generator=g))
    return pred, gt


def test_mask_costs_equal_the_hungarian_assigner_of_the_same_three():
    pred, gt = points_in_masks()
    mine = MaskHungarianAssigner(*MASK_COSTS).assign(pred, gt)
    assert torch.equal(mine.gt_inds, HungarianAssigner(MASK_COSTS).assign(pred, gt).gt_inds)


@pytest.mark.parametrize(("num_preds", "num_gts"), [(30, 7), (3, 7), (0, 7), (30, 0)])
@pytest.mark.parametrize("with_scores", [True, False])
def test_tensors_as_in_mmdet_2_equal_instances(num_preds, num_gts, with_scores):
    pred, gt = points_in_masks(num_preds, num_gts)
    if not with_scores:
        del pred.scores
    assigner = MaskHungarianAssigner(*MASK_COSTS)
    expected = assigner.assign(pred, gt, META)
    scores = pred.scores if with_scores else None
    by_position = assigner.assign(scores, pred.masks, gt.labels, gt.masks, META, None, 1e-7)
    by_name = assigner.assign(
        cls_pred=scores, mask_pred=pred.masks, gt_labels=gt.labels, gt_mask=gt.masks, img_meta=META
    )
    for result in (by_position, by_name):
        assert result.gt_inds.tolist() == expected.gt_inds.tolist()
        assert result.labels.tolist() == expected.labels.tolist()
        assert (result.num_gts, result.max_overlaps) == (num_gts, None)
    assert (expected.gt_inds > 0).sum() == min(num_preds, num_gts)


def test_both_forms_are_told_apart():
    """By the type of the first two arguments, and by their names."""
    g = torch.Generator().manual_seed(3)
    scores, masks, labels = torch.randn(5, 4, generator=g), torch.randn(5, 3, 3, generator=g), torch.tensor([2, 0])
    targets = (torch.randn(2, 3, 3, generator=g) > 0).float()
    pred, gt = InstanceData(scores=scores, masks=masks), InstanceData(labels=labels, masks=targets)
    assigner = MaskHungarianAssigner()
    expected = assigner.assign(pred, gt, META).gt_inds
    for result in (
        assigner.assign(pred, gt_instances=gt, img_meta=META),
        assigner.assign(scores, masks, gt_labels=labels, gt_mask=targets, img_meta=META),
        assigner.assign(scores, masks, labels, targets, META),
        assigner.assign(scores, mask_pred=masks, gt_labels=labels, gt_mask=targets, img_meta=META),
    ):
        assert torch.equal(result.gt_inds, expected)
    with pytest.raises(ValueError, match="mask_pred must be a tensor"):
        assigner.assign(scores, None, labels, targets, img_meta=META)
    with pytest.raises(ValueError, match=r"gt_mask missing; mmdet 2's call is assign\(cls_pred, mask_pred,"):
        assigner.assign(scores, [], labels, targets, img_meta=META)  # level sizes


def test_wrong_tensors_are_named():
    pred, gt = points_in_masks()
    assigner = MaskHungarianAssigner(*MASK_COSTS)
    with pytest.raises(ValueError, match=r"^MaskHungarianAssigner: gt_bboxes_ignore must be None.*street.jpg"):
        assigner.assign(pred.scores, pred.masks, gt.labels, gt.masks, META, torch.zeros(0, 4))
    with pytest.raises(
        ValueError, match=r"the call has fields of different lengths: {'cls_pred': 29, 'mask_pred': 30}.*street.jpg"
    ):
        assigner.assign(pred.scores[1:], pred.masks, gt.labels, gt.masks, META)
    with pytest.raises(ValueError, match=r"the call has 6 gt_mask and 7 gt_labels"):
        assigner.assign(pred.scores, pred.masks, gt.labels, gt.masks[1:], META)
    with pytest.raises(ValueError, match=r"gt_mask must be a tensor, got nothing"):
        assigner.assign(pred.scores, pred.masks, gt.labels, None, META)
    with pytest.raises(ValueError, match=r"gt_labels\[0\] is 9 but scores have 4 classes"):
        assigner.assign(pred.scores, pred.masks, gt.labels + 9, gt.masks, META)
    pred.masks[3, 4] = float("nan")
    with pytest.raises(ValueError, match=r"mask_pred\[3, 4\] is nan.*street.jpg"):
        assigner.assign(pred.scores, pred.masks, gt.labels, gt.masks, META)
    with pytest.raises(TypeError, match="gt_masks"):
        assigner.assign(pred.scores, pred.masks, gt.labels, gt_masks=gt.masks, img_meta=META)


def test_a_mask_cost_of_weight_zero_is_not_computed():
    gt = InstanceData(labels=torch.tensor([1]), masks=masks()[:1])
    pred = InstanceData(masks=torch.randn(3, 2, 2))  # of another size: computing the Dice cost would fail
    assigner = MaskHungarianAssigner(
        cls_cost=dict(type="ClassificationCost", weight=0.0),
        mask_cost=dict(type="FocalLossCost", binary_input=True, weight=0.0),
        dice_cost=dict(type="DiceCost", weight=0.0),
    )
    with pytest.raises(ValueError, match="every cost has weight 0"):
        assigner.assign(pred, gt)
    pred.scores = torch.zeros(3, 4)
    assigner.cls_cost.weight = 1.0
    assert (assigner.assign(pred, gt).gt_inds > 0).sum() == 1


def test_masks_that_are_not_finite_are_named():
    gt = InstanceData(labels=torch.tensor([1, 3]), masks=masks())
    gt.masks[1, 2, 2] = float("nan")
    pred = InstanceData(masks=torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match=r"MaskHungarianAssigner: gt_instances.masks\[1, 2, 2\] is nan.*street.jpg"):
        MaskHungarianAssigner().assign(pred, gt, META)


# ------------------------------------------------------------------------------------------------------ many at once


def image(count, seed, num_preds=60, size=(240, 320)):
    """Predictions, ground truths and meta data; 60 x 7 scores don't fill the registers of a CPU."""
    objects = Objects("batch", draw_boxes(2 * count + 10, size, "mixed", seed)[:count], torch.arange(count) % 7,
                      torch.zeros(0, 4), size, 7)  # fmt: skip
    pred = InstanceData(bboxes=proposals(objects, num_preds, seed=seed), scores=logits(num_preds, objects, seed + 1))
    return pred, objects.instances, dict(img_shape=size)


IMAGES = [image(4, 1), image(0, 2), image(25, 3, size=(200, 500)), image(9, 4, num_preds=33), image(11, 5)]
TERMS = {
    "dino": DINO,
    "detr": [dict(type="ClassificationCost"), dict(type="BBoxL1Cost", weight=5.0), dict(type="IoUCost")],
    "other-exponent": [dict(type="FocalLossCost", gamma=1.5), dict(type="IoUCost", iou_mode="iou")],
    "high-order": [dict(type="HighOrderCost"), dict(type="HighOrderCost", alpha=1.7)],
    "modulated": [
        dict(type="PositionModulatedCost", weight=2.0),
        dict(type="PositionModulatedCost", beta=0.7, gamma=1.5),
    ],
}


def costs_of(terms, images):
    """Batches of images and their costs."""
    assigner = HungarianAssigner(terms)
    return assigner.total_costs(assigner.read_images(images))


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("budget", [1, 150_000, 2**28])
def test_costs_of_many_images_are_those_of_each_to_the_last_bit(terms, budget, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    assigner = HungarianAssigner(TERMS[terms])
    with using(memory_budget=budget):
        images = assigner.read_images(IMAGES)
        batches = assigner.total_costs(images)
    together = {1: [1, 1, 1, 1, 1], 150_000: [2, 1, 1, 1], 2**28: [3, 1, 1]}[budget]
    assert sorted((len(numbers) for numbers, _ in batches), reverse=True) == together
    assert sorted(number for numbers, _ in batches for number in numbers) == [0, 1, 2, 3, 4]
    for numbers, costs in batches:
        for number, cost in zip(numbers, costs, strict=True):
            expected = assigner.total_cost(images[number])
            assert torch.equal(cost[:, : expected.shape[1]], expected)
            assert (cost[:, expected.shape[1] :] == 0).all()


def test_sizes_of_three_numbers_as_in_mmdet_2(monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    images = [IMAGES[0], IMAGES[4]]
    old = [(pred, gt, dict(img_shape=(*meta["img_shape"], 3))) for pred, gt, meta in images]
    ((_, costs),), ((_, expected),) = (costs_of(DINO, some) for some in (old, images))
    assert torch.equal(costs, expected)


def test_masks_and_five_costs_are_worked_out_image_by_image(monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    images = [IMAGES[0], IMAGES[4]]

    class HalfIoUCost(type(HungarianAssigner(dict(type="IoUCost")).match_costs[0])):
        """Might read anything."""

    for terms in ([*DINO, *TERMS["detr"][:2]], [HalfIoUCost()]):
        assert len(costs_of(terms, images)) == 2
    assert len(costs_of(DINO, images)) == 1


@pytest.mark.parametrize("make", [lambda: HungarianAssigner(DINO), lambda: TopkHungarianAssigner(2)])
def test_many_images_wait_once_for_a_device(make, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    preds, gts, metas = map(list, zip(*IMAGES))
    with OperatorCounter() as counter:
        make().assign_batch(preds, gts, None, metas)
    assert counter.waits.total() == 1


def test_operators_of_a_batch_do_not_grow_with_its_images(monkeypatch):
    """But for the sigmoid, which on a CPU is taken of each image by itself."""
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    totals = []
    for count in (2, 12):
        preds, gts, metas = map(list, zip(*(image(5, seed) for seed in range(count))))
        with OperatorCounter() as counter:
            HungarianAssigner(DINO).assign_batch(preds, gts, None, metas)
        totals.append(counter.total - counter.operators["sigmoid"])
    assert totals[0] == totals[1]


def test_the_image_of_a_batch_whose_costs_are_not_finite_is_named(monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", "1")
    preds, gts, metas = map(list, zip(*IMAGES))
    metas[3] = dict(**metas[3], img_path="road.jpg")
    preds[3] = preds[3].clone()
    preds[3].bboxes = preds[3].bboxes.index_fill(0, torch.tensor([7]), float("nan"))
    with pytest.raises(ValueError, match=r"bboxes\[7, 0\] is nan.*\(image road.jpg\)"):
        HungarianAssigner(DINO).assign_batch(preds, gts, None, metas)


every_way = pytest.mark.parametrize("way", ["0", "1"])
BOTH = pytest.mark.parametrize(
    "make", [lambda: HungarianAssigner(DINO), lambda: TopkHungarianAssigner(2)], ids=["one", "topk"]
)


@every_way
@BOTH
def test_a_batch_is_the_loop(make, way, monkeypatch):
    """With an image without objects, one without predictions, and images of other sizes."""
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    images = [*IMAGES, (IMAGES[0][0][:0], *IMAGES[0][1:]), image(0, 2, num_preds=33)]
    images = [(pred.clone(), gt, meta) for pred, gt, meta in images]
    images[4][0].scores = images[4][0].scores.double()  # of another type: it goes by itself, and is made alike
    for pred, _, _ in images:
        pred.scores = pred.scores.sigmoid()
    preds, gts, metas = map(list, zip(*images))
    results = make().assign_batch(preds, gts, None, metas)
    for mine, (pred, gt, meta) in zip(results, images, strict=True):
        fields = (
            (pred.scores, pred.bboxes, gt.bboxes, gt.labels)
            if isinstance(make(), TopkHungarianAssigner)
            else (pred, gt)
        )
        alone = make().assign(*fields, img_meta=meta)
        assert torch.equal(mine.gt_inds, alone.gt_inds)
        assert torch.equal(mine.labels, alone.labels)
    assert sum(int((result.gt_inds > 0).sum()) for result in results) > 40


@every_way
@BOTH
@pytest.mark.parametrize("wrong", ["labels", "bboxes", "img_shape"])
def test_the_image_of_a_batch_that_is_wrong_is_named(make, wrong, way, monkeypatch):
    """Before the device is waited for, also a label that would be no column of the scores."""
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    preds, gts, metas = map(list, zip(*IMAGES))
    metas = [dict(**meta, img_path=f"{number}.jpg") for number, meta in enumerate(metas)]
    preds = [InstanceData(bboxes=pred.bboxes, scores=pred.scores.sigmoid()) for pred in preds]
    gts[2] = InstanceData(bboxes=gts[2].bboxes.clone(), labels=gts[2].labels.clone())
    assigner = make()
    assigner.on_nonfinite = "raise"
    if wrong == "img_shape":
        metas[2]["img_shape"] = (0, 500)
        said = r"img_meta\['img_shape'\] must be"
    elif wrong == "labels":
        gts[2].labels[4] = 7
        said = r"gt_instances.labels\[4\] is 7 but scores have 7 classes"
    else:
        gts[2].bboxes[4, 2] = float("inf")
        said = r"gt_instances.bboxes\[4, 2\] is inf"
    with pytest.raises(ValueError, match=rf"{said}.*\(image 2.jpg\)"):
        assigner.assign_batch(preds, gts, None, metas)


class Strange(BaseMatchCost):
    """A cost of one's own that is not finite though everything that it reads is."""

    reads = ("bboxes", "bboxes")

    def cost(self, pred_instances, gt_instances, img_meta):
        return torch.full((len(pred_instances), len(gt_instances)), float("nan"))


@every_way
@pytest.mark.parametrize("own", [True, False], ids=["ours", "a function"])
def test_a_cost_that_is_not_finite_by_itself_is_named(own, way, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    cost = Strange() if own else lambda **_: torch.full((60, 4), float("nan"))
    assigner = HungarianAssigner([DINO[1], cost])
    pred, gt, meta = IMAGES[0]
    with pytest.raises(ValueError, match=r"HungarianAssigner: (Strange|function)\[0, 0\] is nan.*\(image a.jpg\)"):
        assigner.assign(pred, gt, img_meta=dict(**meta, img_path="a.jpg"))


class Large(Strange):
    """Finite, but not when it is added to itself."""

    def cost(self, pred_instances, gt_instances, img_meta):
        return torch.full((len(pred_instances), len(gt_instances)), 3e38)


@every_way
def test_a_sum_that_is_not_finite_is_told(way, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    metas = [dict(img_shape=(240, 320), img_path=f"{number}.jpg") for number in range(2)]
    preds, gts = [IMAGES[0][0], IMAGES[4][0]], [IMAGES[1][1], IMAGES[4][1]]
    with pytest.raises(ValueError, match=r"the costs of problem 1 of 2 contain invalid numeric.*\(image 1.jpg\)$"):
        HungarianAssigner([Large(), Large()]).assign_batch(preds, gts, None, metas)


class Asking(Strange):
    """Reads a field that one image doesn't have."""

    def cost(self, pred_instances, gt_instances, img_meta):
        return self.read(pred_instances, "pred_instances", "angles") - gt_instances.labels


@every_way
def test_the_image_that_lacks_a_field_of_a_cost_is_named(way, monkeypatch):
    monkeypatch.setenv("VISDET_ASSIGNERS_DEVICE_PATH", way)
    metas = [dict(img_shape=(240, 320), img_path=f"{number}.jpg") for number in range(3)]
    preds = [InstanceData(bboxes=BOXES, angles=torch.rand(3, 1)) for _ in range(3)]
    del preds[1].angles
    gts = [InstanceData(bboxes=BOXES, labels=torch.tensor([0, 1, 2])) for _ in range(3)]
    with pytest.raises(ValueError, match=r"Asking: pred_instances.angles must be a tensor.*\(image 1.jpg\)$"):
        HungarianAssigner([Asking()]).assign_batch(preds, gts, None, metas)


def test_the_size_of_an_image_is_asked_for_by_costs_that_need_it():
    pred, gt, _ = IMAGES[0]
    HungarianAssigner([dict(type="IoUCost")]).assign(pred, gt, img_meta=None)
    for terms in ([dict(type="BBoxL1Cost")], [dict(type="IoUCost"), dict(type="BBoxL1Cost")]):
        with pytest.raises(ValueError, match=r"img_meta\['img_shape'\] must be"):
            HungarianAssigner(terms).assign(pred, gt, img_meta={})
