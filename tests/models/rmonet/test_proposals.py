from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers
from torchvision.ops import box_iou, nms

from unscene.errors import RecipeError
from unscene.models.rmonet.proposals import AnchorPredictions, RegionProposals, assign_anchors, sample_anchors
from unscene.models.rmonet.settings import ProposalSettings

SIZE = (64, 64)


def pyramid_of(size: tuple[int, int] = SIZE, batch: int = 2, channels: int = 8) -> tuple[Tensor, ...]:
    strides = (4, 8, 16, 32)
    maps = [torch.randn(batch, channels, size[0] // s, size[1] // s) for s in strides]
    return (*maps, maps[-1][..., ::2, ::2])


def rpn_of(**changes) -> RegionProposals:
    torch.manual_seed(0)
    rpn = RegionProposals(ProposalSettings(**changes), channels=8)
    for parameter in rpn.parameters():
        parameter.data.normal_(0, 0.2)  # a new head has nearly the same output everywhere
    return rpn


def torchvision_rpn(rpn: RegionProposals) -> RegionProposalNetwork:
    settings = rpn.settings
    return RegionProposalNetwork(
        rpn.anchor_generator,
        rpn.head,
        settings.foreground_iou,
        settings.background_iou,
        settings.batch_size,
        settings.positive_fraction,
        {"training": settings.top_n_before, "testing": settings.top_n_before},
        {"training": settings.top_n_after, "testing": settings.top_n_after},
        settings.level_nms_threshold,
        settings.score_threshold,
    )


def random_boxes(seed: int, counts: tuple[int, ...], most: int = 6) -> tuple[Tensor, Tensor]:
    """Boxes [B, most, 4] in whole pixels, of which the first `counts` of each image are valid, the others zero."""
    noise = np.random.default_rng(seed)
    boxes = np.zeros((len(counts), most, 4), dtype=np.float32)
    for image, count in enumerate(counts):
        corner = noise.integers(0, 50, (count, 2))
        boxes[image, :count] = np.concatenate([corner, np.minimum(corner + noise.integers(3, 40, (count, 2)), 64)], 1)
    return torch.from_numpy(boxes), torch.arange(most) < torch.tensor(counts)[:, None]


# forward: which prediction belongs to which anchor


@pytest.mark.parametrize("size", [(64, 64), (96, 96), (64, 128)])
def test_anchors_and_predictions_have_torchvisions_order(size):
    rpn, pyramid = rpn_of(), pyramid_of(size)
    predicted = rpn(pyramid, size)
    images = ImageList(torch.zeros(2, 3, *size), [size, size])
    sizes = tuple((size,) for size in (16, 32, 64, 128, 256))
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)(images, list(pyramid))
    objectness, deltas = concat_box_prediction_layers(*rpn.head(list(pyramid)))
    assert_close(predicted.anchors, anchors[0])
    assert_close(predicted.objectness.flatten(), objectness.flatten())
    assert_close(predicted.deltas.flatten(0, 1), deltas)
    assert predicted.levels == tuple(3 * level.shape[2] * level.shape[3] for level in pyramid)


def test_half_precision_features_give_float32_predictions():
    rpn = rpn_of().bfloat16()
    predicted = rpn(tuple(level.bfloat16() for level in pyramid_of()), SIZE)
    assert predicted.objectness.dtype == predicted.deltas.dtype == predicted.anchors.dtype == torch.float32


def test_the_pyramid_has_five_levels_and_each_needs_an_anchor_size():
    with pytest.raises(RecipeError, match="anchor_sizes must be a list of 5"):
        ProposalSettings(anchor_sizes=(16, 32))


# propose


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_proposals_are_torchvisions_then_a_final_nms_and_the_best(seed, threshold):
    rpn = rpn_of(score_threshold=threshold)
    torch.manual_seed(seed)
    with torch.no_grad():
        predicted = rpn(pyramid_of(batch=3), SIZE)
    reference = torchvision_rpn(rpn).eval()
    decoded = BoxCoder((1.0, 1.0, 1.0, 1.0)).decode(predicted.deltas.flatten(0, 1), [predicted.anchors] * 3)
    filtered = reference.filter_proposals(
        decoded.view(3, -1, 4), predicted.objectness.flatten(), [SIZE] * 3, list(predicted.levels)
    )
    proposals = rpn.propose(predicted, SIZE, 5)
    assert proposals.boxes.shape == (3, 5, 4)
    for image, (boxes, scores) in enumerate(zip(*filtered, strict=True)):
        best = nms(boxes, scores, 0.3)[:5]
        assert proposals.valid[image].tolist() == [n < len(best) for n in range(5)]
        assert_close(proposals.boxes[image, : len(best)], boxes[best], rtol=1e-5, atol=1e-4)
        assert_close(proposals.scores[image, : len(best)], scores[best])
        assert not proposals.boxes[image, len(best) :].any()
        assert not proposals.scores[image, len(best) :].any()


def outputs(objectness: list[float], anchors: list[list[float]], levels: tuple[int, ...]) -> AnchorPredictions:
    """An image in which every anchor is its own box."""
    return AnchorPredictions(torch.tensor([objectness]), torch.zeros(1, len(anchors), 4), torch.tensor(anchors), levels)


def test_proposals_by_hand():
    """Best first. Of two overlapping boxes of one or of two levels the weaker is dropped; so are boxes of low score."""
    anchors = [[0.0, 0, 10, 10], [1, 0, 11, 10], [30, 30, 50, 60], [0, 1, 10, 11], [40, 0, 90, 10]]
    predicted = outputs([2.0, 1.0, 3.0, 0.5, -1.0], anchors, (2, 3))
    proposals = rpn_of().propose(predicted, SIZE, 4)
    assert proposals.boxes[0].tolist() == [[30, 30, 50, 60], [0, 0, 10, 10], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert proposals.scores[0].tolist() == pytest.approx([1 / (1 + math.exp(-3)), 1 / (1 + math.exp(-2)), 0, 0])
    assert proposals.valid[0].tolist() == [True, True, False, False]
    unsure = rpn_of().propose(predicted, SIZE, 4, score_threshold=0.1)
    assert unsure.boxes[0, 2].tolist() == [40, 0, 64, 10]  # cut at the image's edge


def test_no_sure_anchor_gives_no_valid_box():
    proposals = rpn_of().propose(outputs([-1.0, -2.0], [[0.0, 0, 9, 9], [30, 30, 50, 50]], (1, 1)), SIZE, 3)
    assert not proposals.valid.any()
    assert proposals.boxes.tolist() == [[[0.0] * 4] * 3]


def test_a_box_wholly_outside_of_the_image_is_dropped():
    proposals = rpn_of().propose(outputs([5.0, 1.0], [[70.0, 0, 90, 9], [0, 0, 9, 9]], (1, 1)), SIZE, 2)
    assert proposals.boxes[0].tolist() == [[0, 0, 9, 9], [0, 0, 0, 0]]


def test_a_box_longer_than_max_side_does_not_suppress_the_shorter_ones():
    predicted = outputs([3.0, 2.0, 1.0], [[0.0, 0, 20, 41], [0, 0, 20, 20], [0, 21, 20, 41]], (3,))
    proposals = rpn_of(max_side=40.0).propose(predicted, SIZE, 3)
    assert proposals.boxes[0].tolist() == [[0, 0, 20, 20], [0, 21, 20, 41], [0, 0, 0, 0]]


def test_top_n_before_and_after_count_boxes_of_a_level_and_of_an_image():
    anchors = [[10.0 * n, 0, 10.0 * n + 8, 8] for n in range(6)]
    predicted = outputs([6.0, 5, 4, 3, 2, 1], anchors, (4, 2))
    per_level = rpn_of(top_n_before=1).propose(predicted, SIZE, 6)
    assert per_level.boxes[0, per_level.valid[0], 0].tolist() == [0, 40]
    per_image = rpn_of(top_n_after=3).propose(predicted, SIZE, 6)
    assert per_image.boxes[0, per_image.valid[0], 0].tolist() == [0, 10, 20]


def test_no_gradient_flows_through_proposals():
    predicted = rpn_of()(pyramid_of(), SIZE)
    assert predicted.deltas.requires_grad
    assert not rpn_of().propose(predicted, SIZE, 5).boxes.requires_grad


def test_padding_of_short_levels_is_no_box():
    predicted = outputs([2.0, 1.0, 0.0], [[0.0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]], (1, 2))
    rpn = rpn_of(level_nms_threshold=1.0, final_nms_threshold=1.0)
    proposals = rpn.propose(predicted, SIZE, 5, score_threshold=-1.0)
    assert proposals.boxes[0, proposals.valid[0], 0].tolist() == [0, 20, 40]


@pytest.mark.parametrize("seed", range(4))
def test_rows_that_fill_short_levels_do_not_change_the_order_of_equal_scores(seed):
    levels = (100, 100, 27, 12)
    anchors = torch.tensor(
        [[4.0 * (n % 16), 4.0 * (n // 16), 4.0 * (n % 16) + 3, 4.0 * (n // 16) + 3] for n in range(239)]
    )
    torch.manual_seed(seed)
    logits = torch.linspace(-9, -5, 239)[torch.randperm(239)]
    logits[torch.randperm(239)[:12]] = torch.linspace(50, 60, 12)  # the sigmoid of these is 1
    ranks = [level.argsort(descending=True) for level in logits.split(levels)]
    order = torch.cat([rank + sum(levels[:n]) for n, rank in enumerate(ranks)])
    first = torch.where(logits[order] > 0, 1.0, -1.0).topk(20)
    expected = order[first.indices][first.values.topk(5).indices]
    proposals = rpn_of().propose(outputs(logits.tolist(), anchors.tolist(), levels), SIZE, 5)
    assert torch.equal(proposals.boxes[0], anchors[expected])


def test_anchors_are_computed_once_and_training_can_use_those_of_a_validation():
    rpn, pyramid = rpn_of(), pyramid_of()
    with torch.inference_mode():
        anchors_of_first_call = rpn(pyramid, SIZE).anchors
    assert rpn(pyramid, SIZE).anchors is anchors_of_first_call
    assert not anchors_of_first_call.is_inference()
    wide = rpn(pyramid_of((64, 128)), (64, 128)).anchors
    assert len(wide) > len(anchors_of_first_call)
    assert torch.equal(rpn(pyramid, SIZE).anchors, anchors_of_first_call)
    assert not [name for name in rpn.state_dict() if "head" not in name]


# assignment and sampling


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), counts=st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 6)))
def test_assignment_is_torchvisions_matcher(seed, counts):
    boxes, valid = random_boxes(seed, counts)
    anchors = rpn_of()(pyramid_of(batch=1), SIZE).anchors
    labels, matched = assign_anchors(anchors, boxes, valid, 0.7, 0.3)
    matcher = Matcher(0.7, 0.3, allow_low_quality_matches=True)
    for image, count in enumerate(counts):
        if count == 0:
            assert not labels[image].any()
            continue
        theirs = matcher(box_iou(boxes[image, :count], anchors))
        expected = torch.where(theirs >= 0, 1, torch.where(theirs == Matcher.BELOW_LOW_THRESHOLD, 0, -1))
        assert torch.equal(labels[image], expected)
        assert torch.equal(matched[image][theirs >= 0], theirs[theirs >= 0])


def test_assignment_by_hand():
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 5], [30, 0, 40, 10], [40, 40, 50, 50]])
    boxes = torch.tensor([[[0.0, 0, 10, 10], [33, 0, 43, 10], [0, 0, 0, 0]]])
    labels, matched = assign_anchors(anchors, boxes, torch.tensor([[True, True, False]]), 0.7, 0.3)
    assert labels.tolist() == [[1, 1, -1, 1, 0]]  # the fourth (IoU 7/13) is the best that the second box has
    assert matched[0, :4].tolist() == [0, 0, 0, 1]


def test_a_box_that_touches_no_anchor_claims_none():
    """torchvision's matcher would make every anchor that does not touch the box positive."""
    anchors, boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]]), torch.tensor([[[50.0, 50, 60, 60]]])
    labels, _ = assign_anchors(anchors, boxes, torch.tensor([[True]]), 0.7, 0.3)
    assert labels.tolist() == [[0, 0]]


def test_without_rows_for_boxes_all_anchors_are_negative():
    labels, matched = assign_anchors(
        torch.rand(7, 4), torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool), 0.7, 0.3
    )
    assert labels.tolist() == matched.tolist() == [[0] * 7] * 2


@settings(deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shares=st.sampled_from([(0.0, 1.0), (1.0, 0.0), (0.5, 0.5), (0.05, 0.5), (0.5, 0.05), (0.0, 0.0)]),
    batch_size=st.sampled_from([1, 8, 31, 64, 400]),
    fraction=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_samples_keep_their_quotas(seed, shares, batch_size, fraction):
    chance = torch.from_numpy(np.random.default_rng(seed).random((3, 150)))
    labels = torch.where(chance < shares[0], 1, torch.where(chance < sum(shares), 0, -1))
    positive, negative = sample_anchors(labels, batch_size, fraction)
    assert not (positive & (labels != 1)).any()
    assert not (negative & (labels != 0)).any()
    for image in range(3):
        num_positive = min(int(batch_size * fraction), int((labels[image] == 1).sum()))
        assert positive[image].sum() == num_positive
        assert negative[image].sum() == min(batch_size - num_positive, int((labels[image] == 0).sum()))


def test_every_candidate_is_sampled_equally_often():
    torch.manual_seed(0)
    labels = torch.tensor([1] * 10 + [0] * 20 + [-1] * 5).expand(4000, -1)
    positive, negative = sample_anchors(labels, 8, 0.5)
    assert positive.float().mean(dim=0)[:10].tolist() == pytest.approx([0.4] * 10, abs=0.04)
    assert negative.float().mean(dim=0)[10:30].tolist() == pytest.approx([0.2] * 20, abs=0.04)


# loss


def loss_of_one_image(
    predicted: AnchorPredictions,
    image: int,
    positive: Tensor,
    negative: Tensor,
    targets: dict[int, list[float]],
    beta: float,
) -> tuple[float, float]:
    """Binary log loss and smooth L1 (Ren et al., Eq. 1 and 2), summed anchor after anchor; float64."""
    objectness = regression = 0.0
    for anchor in range(len(predicted.anchors)):
        chance = 1 / (1 + math.exp(-predicted.objectness[image, anchor].item()))
        if positive[anchor]:
            objectness -= math.log(chance)
            ax1, ay1, ax2, ay2 = predicted.anchors[anchor].tolist()
            x1, y1, x2, y2 = targets[anchor]
            expected_deltas = (
                ((x1 + x2) / 2 - (ax1 + ax2) / 2) / (ax2 - ax1),
                ((y1 + y2) / 2 - (ay1 + ay2) / 2) / (ay2 - ay1),
                math.log((x2 - x1) / (ax2 - ax1)),
                math.log((y2 - y1) / (ay2 - ay1)),
            )
            for value, want in zip(predicted.deltas[image, anchor].tolist(), expected_deltas, strict=True):
                far = abs(value - want)
                regression += far**2 / (2 * beta) if far < beta else far - beta / 2
        elif negative[anchor]:
            objectness -= math.log(1 - chance)
    return objectness, regression


@pytest.mark.parametrize("normaliser", ["sampled", "anchors"])
@pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0])
def test_loss_is_that_of_each_image_alone(normaliser, beta):
    rpn = rpn_of(regression_normaliser=normaliser, smooth_l1_beta=beta, batch_size=64)
    torch.manual_seed(1)
    with torch.no_grad():
        predicted = rpn(pyramid_of(batch=3), SIZE)
    boxes, valid = random_boxes(2, (4, 0, 1))
    torch.manual_seed(7)
    objectness, regression = rpn.loss(predicted, boxes, valid)
    torch.manual_seed(7)
    labels, matched = assign_anchors(predicted.anchors, boxes, valid, 0.7, 0.3)
    positive, negative = sample_anchors(labels, 64, 0.5)
    assert (positive.sum(dim=1) > 0).tolist() == [True, False, True]
    for image in range(3):
        targets = {n: boxes[image, matched[image, n]].tolist() for n in positive[image].nonzero().flatten().tolist()}
        value, moved = loss_of_one_image(predicted, image, positive[image], negative[image], targets, beta)
        assert objectness[image].item() == pytest.approx(value / 64, rel=1e-5)
        divisor = 64 if normaliser == "sampled" else len(predicted.anchors)
        assert regression[image].item() == pytest.approx(moved / divisor, rel=1e-5)


def test_loss_is_torchvisions_on_the_same_sample():
    rpn = rpn_of(regression_normaliser="sampled", smooth_l1_beta=1 / 9)
    torch.manual_seed(1)
    with torch.no_grad():
        predicted = rpn(pyramid_of(), SIZE)
    boxes, valid = random_boxes(4, (3, 5))
    torch.manual_seed(7)
    objectness, regression = rpn.loss(predicted, boxes, valid)
    torch.manual_seed(7)
    sample = sample_anchors(assign_anchors(predicted.anchors, boxes, valid, 0.7, 0.3)[0], 256, 0.5)
    reference = torchvision_rpn(rpn)
    reference.fg_bg_sampler = lambda labels: (
        [indices.long() for indices in sample[0]],
        [indices.long() for indices in sample[1]],
    )
    targets = [{"boxes": boxes[image, valid[image]]} for image in range(2)]
    labels, matched = reference.assign_targets_to_anchors([predicted.anchors] * 2, targets)
    deltas = reference.box_coder.encode(matched, [predicted.anchors] * 2)
    theirs = reference.compute_loss(
        predicted.objectness.flatten()[:, None], predicted.deltas.flatten(0, 1), labels, list(deltas)
    )
    assert objectness.mean().item() == pytest.approx(theirs[0].item(), rel=1e-5)
    assert regression.mean().item() == pytest.approx(theirs[1].item(), rel=1e-5)


def test_an_image_without_boxes_teaches_that_nothing_is_there():
    rpn = rpn_of()
    with torch.no_grad():
        predicted = rpn(pyramid_of(), SIZE)
    for boxes in (torch.zeros(2, 3, 4), torch.zeros(2, 0, 4)):
        objectness, regression = rpn.loss(predicted, boxes, torch.zeros(boxes.shape[:2], dtype=torch.bool))
        assert (objectness > 0).all()
        assert regression.tolist() == [0, 0]


@pytest.mark.parametrize("beta", [0.0, 1 / 9])
def test_the_gradient_reaches_the_sampled_anchors_alone(beta):
    rpn = rpn_of(smooth_l1_beta=beta, batch_size=32)
    with torch.no_grad():
        predicted = rpn(pyramid_of(), SIZE)
    predicted = predicted._replace(
        objectness=predicted.objectness.requires_grad_(), deltas=predicted.deltas.requires_grad_()
    )
    boxes, valid = random_boxes(5, (2, 0))
    torch.manual_seed(7)
    objectness, regression = rpn.loss(predicted, boxes, valid)
    (objectness + regression).sum().backward()
    torch.manual_seed(7)
    positive, negative = sample_anchors(assign_anchors(predicted.anchors, boxes, valid, 0.7, 0.3)[0], 32, 0.5)
    assert torch.isfinite(predicted.deltas.grad).all()
    assert torch.equal(predicted.objectness.grad != 0, positive | negative)
    assert torch.equal((predicted.deltas.grad != 0).any(dim=-1), positive)
    assert (predicted.objectness.grad[positive] < 0).all()
