"""Confusion matrices and what is read off them, against scikit-learn; accuracy within k, against sorting."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from poise.objectives import (
    class_iou,
    class_scores,
    confusion_matrix,
    correct_within,
    mean_iou,
    pixel_accuracy,
)

VOID = 255


def maps(classes, batch=3, void=0.2, seed=0, present=None):
    generator = np.random.default_rng(seed)
    labels, predicted = (generator.choice(present or classes, (batch, 4, 5)) for _ in range(2))
    labels[generator.random(labels.shape) < void] = VOID
    return torch.from_numpy(predicted), torch.from_numpy(labels)


@given(classes=st.integers(2, 6), void=st.sampled_from([0.0, 0.3, 0.95, 1.0]), seed=st.integers(0, 999))
def test_measures_are_scikit_learns(classes, void, seed):
    predicted, labels = maps(classes, void=void, seed=seed)
    confusion = confusion_matrix(predicted, labels, classes, void=VOID)
    counted = (labels != VOID).numpy()
    truth, guess, every = labels.numpy()[counted], predicted.numpy()[counted], list(range(classes))
    if not counted.any():
        assert confusion.sum() == 0 and math.isnan(mean_iou(confusion)) and math.isnan(pixel_accuracy(confusion))
        return
    assert confusion.dtype == torch.int64
    assert np.array_equal(confusion.numpy(), metrics.confusion_matrix(truth, guess, labels=every))
    present = sorted({*truth.tolist(), *guess.tolist()})
    iou = class_iou(confusion).numpy()
    assert np.allclose(iou[present], metrics.jaccard_score(truth, guess, labels=present, average=None))
    assert np.isnan(np.delete(iou, present)).all()
    assert mean_iou(confusion) == pytest.approx(metrics.jaccard_score(truth, guess, labels=present, average="macro"))
    assert pixel_accuracy(confusion) == pytest.approx(metrics.accuracy_score(truth, guess))
    for place, score in enumerate(class_scores(confusion, [f"class {place}" for place in every])):
        mine, its = truth == place, guess == place
        assert score.pixels == mine.sum() and score.name == f"class {place}"
        assert score.recall == pytest.approx((mine & its).sum() / mine.sum() if mine.any() else math.nan, nan_ok=True)
        assert score.precision == pytest.approx((mine & its).sum() / its.sum() if its.any() else math.nan, nan_ok=True)
        assert score.iou == pytest.approx(iou[place], nan_ok=True)


def test_matrices_of_batches_add_up():
    predicted, labels = maps(5, batch=7)
    parts = [confusion_matrix(predicted[i : i + 3], labels[i : i + 3], 5, VOID) for i in range(0, 7, 3)]
    assert torch.equal(sum(parts), confusion_matrix(predicted, labels, 5, VOID))
    assert torch.equal(
        confusion_matrix(predicted.byte(), labels.byte(), 5, VOID), confusion_matrix(predicted, labels, 5, VOID)
    )


def test_what_is_predicted_where_the_label_is_void_does_not_matter():
    predicted, labels = maps(4)
    other = torch.where(labels == VOID, 999, predicted)
    assert torch.equal(confusion_matrix(other, labels, 4, VOID), confusion_matrix(predicted, labels, 4, VOID))


def test_a_class_that_is_only_predicted_counts_as_missed():
    # One of four pixels is called the third class, which no label has: it is in the mean, with nothing right.
    confusion = confusion_matrix(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 1, 1]), 5)
    assert class_iou(confusion)[:3].tolist() == [1.0, 0.5, 0.0] and mean_iou(confusion) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("predicted", "labels", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3).long(), "integers of one shape"),
        (torch.zeros(2, 3).long(), torch.zeros(2, 4).long(), r"\(2, 3\)"),
        (torch.zeros(3).long(), torch.tensor([0, 1, VOID]), "labels run from 0 to 255"),
        (torch.tensor([0, -1]), torch.tensor([0, 1]), "predictions run from -1"),
    ],
)
def test_what_is_no_pair_is_refused(predicted, labels, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(predicted, labels, 3)


def test_a_table_names_every_class():
    with pytest.raises(ValueError, match="not of 2 classes"):
        class_scores(torch.zeros(3, 3), ["a", "b"])


@given(classes=st.integers(1, 7), ties=st.booleans(), seed=st.integers(0, 999), data=st.data())
def test_within_k_is_a_stable_sort(classes, ties, seed, data):
    k = data.draw(st.integers(1, classes))
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(20, classes, generator=generator)
    logits = (logits * 2).round() if ties else logits
    labels = torch.randint(classes, (20,), generator=generator)
    ranked = [sorted(range(classes), key=lambda place: (-row[place], place)) for row in logits.tolist()]
    expected = sum(int(label) in order[:k] for order, label in zip(ranked, labels, strict=True))
    assert int(correct_within(logits, labels, k)) == expected
    if not ties and classes > 2 and k < classes:
        share = metrics.top_k_accuracy_score(labels, logits.numpy(), k=k, labels=list(range(classes)))
        assert expected / 20 == pytest.approx(share)


def test_what_is_no_number_is_not_right():
    logits = torch.tensor([[math.nan, math.nan, math.nan], [0.0, math.nan, 1.0], [5.0, 0.0, 1.0]])
    labels = torch.tensor([0, 2, 0])
    assert int(correct_within(logits, labels, 1)) == 1 and int(correct_within(logits, labels, 3)) == 2


@pytest.mark.parametrize("k", [0, 4])
def test_k_is_a_number_of_classes(k):
    with pytest.raises(ValueError, match=f"k={k} of 3"):
        correct_within(torch.zeros(2, 3), torch.zeros(2).long(), k)
    with pytest.raises(ValueError, match="do not fit"):
        correct_within(torch.zeros(2, 3), torch.zeros(3).long())
