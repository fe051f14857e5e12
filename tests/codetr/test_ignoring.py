"""Background that another head contradicts isn't counted: the weights by plain loops, and all else as it was."""

import pytest
import torch

from co_detrs import BRANCHES, FASTER_RCNN, STRIDES, build_co, dense, images, losses_of, plain_config
from detectors import build
from visdet_assigners.adapting.shadowing import listen, shadow
from visdet_assigners.codetr import AuxDenseBranch, strip_auxiliary
from visdet_assigners.codetr.collaboration import Collaboration
from visdet_assigners.codetr.ignoring import Rehearsal, ignore_conflicts

PRIMARY = dict(type="PrimaryOneToMany")


def branch_of(name):
    torch.manual_seed(0)
    branch = AuxDenseBranch(dense(name)["head"], num_classes=80, embed_dims=16)
    branch.init_weights()
    return branch


def pyramid():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 16, -(-96 // s), -(-128 // s), generator=generator).requires_grad_() for s in STRIDES]


def targets_of(branch, maps, samples):
    """Labels and label weights of each image, as the head's loss gets them; and losses and positives."""
    made = []
    start = 1 if hasattr(branch.head, "centerness") or type(branch.head).__name__ in ("ATSSHead", "GFLHead") else 0
    with listen(branch.head, "_get_targets_single", lambda result, *_, **__: made.append(result)):
        losses, positives = branch.loss(maps, samples)
    return [result[start : start + 2] for result in made], losses, positives


def by_plain_loops(targets, others, places):
    """Weights of one head's priors, place by place."""
    labels, weights = (part.view(places, -1) for part in targets)
    expected = weights.clone()
    for place in range(places):
        own = any(0 <= label < 80 for label in labels[place].tolist())
        theirs = any(0 <= label < 80 for other, _ in others for label in other.view(places, -1)[place].tolist())
        if theirs and not own:
            for prior, label in enumerate(labels[place].tolist()):
                if label >= 80:
                    expected[place, prior] = 0
    return expected.flatten()


@pytest.mark.parametrize("names", [("atss", "retina"), ("retina", "gfl", "atss")])
def test_weights_by_plain_loops(names):
    branches, (_, samples) = [branch_of(name) for name in names], images()
    maps = pyramid()
    places = sum(level[0, 0].numel() for level in maps)
    counted = [targets_of(branch, maps, samples) for branch in branches]
    with ignore_conflicts(branches, maps, samples):
        ignored = [targets_of(branch, maps, samples) for branch in branches]
    left_out = 0
    for number, ((before, losses, positives), (after, other_losses, other_positives)) in enumerate(
        zip(counted, ignored)
    ):
        for image in range(len(samples)):
            others = [targets[image] for other, (targets, _, _) in enumerate(counted) if other != number]
            labels, weights = after[image]
            assert torch.equal(labels, before[image][0])
            assert torch.equal(weights, by_plain_loops(before[image], others, places))
            left_out += int((weights != before[image][1]).sum())
            assert torch.equal(positives[image].boxes, other_positives[image].boxes)
            assert torch.equal(positives[image].gt_index, other_positives[image].gt_index)
        assert losses.keys() == other_losses.keys()
        for name, values in losses.items():  # boxes are learned as before
            same = [torch.equal(one, other) for one, other in zip(values, other_losses[name])]
            assert "cls" in name or all(same), name
    assert left_out > 0


def test_losses_are_the_heads_own_with_these_weights():
    branches, (_, samples) = [branch_of("atss"), branch_of("retina")], images()
    maps = pyramid()
    retina = branches[1]
    made = []
    with ignore_conflicts(branches, maps, samples):
        with listen(retina.head, "_get_targets_single", lambda result, *_, **__: made.append(result)):
            found, _ = retina.loss(maps, samples)
        gradient = torch.autograd.grad(sum(map(sum, found.values())), maps)
    answers = iter(made)
    with shadow(retina.head, "_get_targets_single", lambda *_, **__: next(answers)):
        expected = retina.head.loss(tuple(maps), samples)
    for name, values in expected.items():
        assert all(torch.equal(one, other) for one, other in zip(found[name], values)), name
    for one, other in zip(gradient, torch.autograd.grad(sum(map(sum, expected.values())), maps)):
        assert torch.equal(one, other)


def test_everything_is_decided_once_and_heads_are_left_as_they_were():
    branches, (_, samples) = [branch_of("atss"), branch_of("retina")], images()
    heads = [branch.head for branch in branches]
    before = [dict(vars(head)) for head in heads]
    calls = {"forward": 0, "assign": 0, "sample": 0}

    def count(name):
        def hear(*_, **__):
            calls[name] += 1

        return hear

    with (
        listen(heads[1], "forward", count("forward")),
        listen(heads[1].assigner, "assign", count("assign")),
        listen(heads[1].sampler, "sample", count("sample")),
        ignore_conflicts(branches, pyramid(), samples),
    ):
        for branch in branches:
            branch.loss(pyramid(), samples)
    assert calls == {"forward": 1, "assign": 2, "sample": 2}
    assert [dict(vars(head)) for head in heads] == before


@pytest.mark.parametrize("kind", ["refined", "dino", "dab"])
def test_three_heads_and_the_main_losses_to_the_last_bit(kind):
    model, plain = build_co(kind, [*BRANCHES, PRIMARY], conflicts="ignore"), build(plain_config(kind))
    plain.load_state_dict(strip_auxiliary(model.state_dict()))
    ours, theirs = losses_of(model, images()), losses_of(plain, images())
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
    counting = losses_of(build_co(kind, [*BRANCHES, PRIMARY]), images())
    assert set(ours) == set(counting)
    assert all(torch.isfinite(value).all() for value in ours.values())
    sum(value for name, value in ours.items() if "loss" in name).backward()
    assert not [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]


@pytest.mark.parametrize("boxes", [[[], [[30.0, 5.0, 80.0, 50.0]]], [[], []]], ids=["one empty", "empty"])
def test_images_without_objects(boxes):
    model = build_co("refined", BRANCHES, conflicts="ignore")
    losses = losses_of(model, images(boxes))
    assert all(torch.isfinite(value).all() for value in losses.values())
    sum(value for name, value in losses.items() if "loss" in name).backward()
    assert not [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]


@pytest.mark.parametrize("branches", [[], BRANCHES[:1], [dense("atss"), PRIMARY]], ids=["none", "one", "no places"])
def test_without_another_head_nothing_changes(branches):
    counting = losses_of(build_co("refined", branches), images())
    ignoring = losses_of(build_co("refined", branches, conflicts="ignore"), images())
    assert counting.keys() == ignoring.keys()
    assert all(torch.equal(ignoring[name], value) for name, value in counting.items())


def test_bfloat16_autocast():
    model = build_co("refined", BRANCHES[:2], conflicts="ignore")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(model, images())
    assert all(torch.isfinite(value).all() for value in losses.values())
    sum(value for name, value in losses.items() if "loss" in name).backward()
    assert not [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]


@pytest.mark.parametrize("name", ["fcos", "paa"])
def test_heads_without_weights_are_refused(name):
    with pytest.raises(TypeError, match=rf"aux_branches\[1\]: {name.upper()}Head weighs no labels"):
        build_co("refined", [FASTER_RCNN, dense(name)], conflicts="ignore")
    build_co("refined", [FASTER_RCNN, dense(name)])


def test_a_head_that_makes_no_targets():
    branches, (_, samples) = [branch_of("atss"), branch_of("retina")], images()
    branches[1].head.loss = lambda *_: {}
    branches[1].loss_by_place = lambda *_: None
    with (
        pytest.raises(TypeError, match=r"RetinaHead made targets 0 times .* conflicts='ignore' can't work"),
        ignore_conflicts(branches, pyramid(), samples),
    ):
        pass


def test_a_head_with_other_places_than_the_pyramid():
    rehearsal = Rehearsal(branch_of("atss"), pyramid(), images()[1])
    with pytest.raises(TypeError, match=r"ATSSHead has \d+ priors, which are no multiple of the pyramid's 7 places"):
        rehearsal.positive_places(7)


def test_the_choice_is_checked():
    with pytest.raises(ValueError, match="collab: conflicts is 'drop'; choose one of count, ignore"):
        Collaboration(conflicts="drop")
