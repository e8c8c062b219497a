import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edm2core.probe.cells import Cell
from edm2core.probe.scores import accuracy, choose, confusion, few_of_each, mean_and_deviation, nearest, standard_error, stratified_split


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(2, 40), min_size=1, max_size=6), st.floats(0.01, 0.9), st.integers(0, 5))
def test_a_split_is_stratified_and_complete(counts: list[int], share: float, seed: int) -> None:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    kept, held = stratified_split(labels, share, seed)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(labels)))
    for label, count in enumerate(counts):
        number = int((labels[held] == label).sum())
        assert 1 <= number < count
        assert abs(number - share * count) <= 1


def test_few_labels_are_of_every_class_and_others_with_another_seed() -> None:
    labels = torch.arange(300) % 3
    few = few_of_each(labels, 0.01, 0)
    assert sorted(labels[few].tolist()) == [0, 1, 2]
    assert len(few_of_each(labels, 0.1, 0)) == 30
    assert few.tolist() != few_of_each(labels, 0.01, 1).tolist()
    assert few_of_each(torch.tensor([0, 1]), 0.1, 0).tolist() == [0, 1]


def test_confusion_counts_true_classes_in_rows() -> None:
    matrix = confusion(torch.tensor([0, 2, 2, 1]), torch.tensor([0, 1, 1, 1]), 3)
    assert matrix.tolist() == [[1, 0, 0], [0, 1, 2], [0, 0, 0]]


def test_of_equal_cells_the_first_is_chosen() -> None:
    assert choose({Cell(3, "a"): 50.0, Cell(4, "a"): 60.0, Cell(5, "a"): 60.0}) == Cell(4, "a")


def test_the_label_among_the_likeliest_is_a_hit() -> None:
    likeliest, labels = torch.tensor([[0, 1], [2, 0], [1, 2]]), torch.tensor([1, 2, 0])
    assert accuracy(likeliest[:, 0], labels) == pytest.approx(100 / 3, abs=1e-3)
    assert accuracy(likeliest, labels) == pytest.approx(200 / 3, abs=1e-3)


def test_accuracy_over_seeds_has_a_mean_and_a_deviation() -> None:
    assert mean_and_deviation([90.0]) == (90.0, None)
    assert mean_and_deviation([90.0, 91.0, 92.0]) == (91.0, 1.0)


def test_the_standard_error_is_what_other_test_images_change() -> None:
    """Images differ in how hard they are, seeds in which of them they get wrong; 3,000 sets of test images."""
    draws = torch.Generator().manual_seed(0)
    for seeds in (1, 3):
        hard = torch.rand(3000, 1, 200, generator=draws) ** 0.5
        hits = torch.rand(3000, seeds, 200, generator=draws) < hard
        true = float(hits.double().mean((1, 2)).std()) * 100
        errors = torch.tensor([standard_error(list(one)) for one in hits[:500]])
        assert float(errors.square().mean().sqrt()) == pytest.approx(true, rel=0.05)


def test_seeds_that_agree_have_the_standard_error_of_one() -> None:
    hit = torch.tensor([True, True, True, False])
    assert standard_error([hit]) == standard_error([hit, hit, hit]) == pytest.approx((75 * 25 / 4) ** 0.5, abs=1e-4)
    assert standard_error([hit[:3]]) == 0
    assert standard_error([torch.tensor(x) for x in ([True, False, False], [False, True, False], [False, False, True])]) == 0


def test_one_near_neighbour_outvotes_two_far_ones() -> None:
    """By hand: two neighbours of class 1 at an angle, one of class 0 in the same direction, whatever their lengths."""
    bank = torch.tensor([[2.0, 0.0], [0.5, 0.5], [0.5, 0.5]])
    labels, looked = torch.tensor([0, 1, 1]), torch.tensor([[3.0, 0.0], [0.6, 0.7]])
    assert nearest(bank, labels, looked, 3, 2).tolist() == [0, 1]  # votes exp(1/.07) against 2 exp(.707/.07)
    assert nearest(bank, labels, looked, 1, 2).tolist() == [0, 1]
    assert nearest(bank, labels, looked, 20, 2).tolist() == [0, 1]  # more than there are
