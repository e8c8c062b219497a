"""EDM's augmentation against its formulas, computed pixel by pixel in float64."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from edm2core.config import load_recipe
from edm2core.config.settings import AugmentSettings, TrajectorySettings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.augmentations import SYM6, Augmentation, augmentation, augmented
from edm2core.diffusion.trainer import Trainer
from edm2core.errors import InputError
from edm2core.keyed_random import seed_of
from edm2core.registry import AUGMENTATIONS

Array = NDArray[np.float64]
SIDE = 8
IMAGES = torch.from_numpy(np.random.Generator(np.random.Philox(1)).integers(0, 256, (40, 1, SIDE, SIDE), np.uint8))
ALL = {"training.augment": {"probability": 0.5}}


def seeds(name: str) -> int:
    return seed_of(3, 5, f"augment {name}")


def drawn(*transforms: str, count: int = 4000, probability: float = 0.12) -> Augmentation:
    chosen = {"transforms": transforms} if transforms else {}
    return augmentation(AugmentSettings.model_validate({"probability": probability, **chosen}), seeds, count)


def moved(images: Tensor, matrix: Array) -> Tensor:
    """The images, each under the same map from new places to old ones."""
    count = len(images)
    return augmented(images, Augmentation(np.zeros((count, 0)), np.zeros((count, 2), np.bool_), np.tile(matrix, (count, 1, 1))))


def translation(x: float, y: float) -> Array:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def test_the_filter_is_orthogonal_and_has_six_vanishing_moments() -> None:
    taps = np.array(SYM6)
    assert taps.sum() == pytest.approx(math.sqrt(2), abs=1e-11)
    for shift in range(6):
        assert (taps[2 * shift :] * taps[: len(taps) - 2 * shift]).sum() == pytest.approx(float(shift == 0), abs=1e-11)
    signs = (-1.0) ** np.arange(12)
    for moment in range(6):
        assert (signs * taps * np.arange(-5, 7) ** moment).sum() == pytest.approx(0, abs=1e-8)


def reference(image: Array, old_of_new: Array) -> Array:
    """One channel [S, S] by the description: mirrored, brought to twice the resolution, sampled bilinearly, brought back."""
    side, taps = len(image), np.array(SYM6)
    padded = np.pad(image, side - 1, "reflect")

    def finer(row: Array) -> Array:
        spread = np.zeros(2 * len(row))
        spread[::2] = row
        return np.convolve(spread, taps)[5 : 5 + len(spread)]

    fine = np.apply_along_axis(finer, 1, np.apply_along_axis(finer, 0, padded))

    def at(row: float, column: float) -> float:
        i, j = math.floor(row), math.floor(column)
        corners = [(i, j, 0, 0), (i, j + 1, 0, 1), (i + 1, j, 1, 0), (i + 1, j + 1, 1, 1)]
        inside = [(a, b, da, db) for a, b, da, db in corners if 0 <= a < len(fine) and 0 <= b < len(fine)]
        return sum(fine[a, b] * (1 - abs(row - i - da)) * (1 - abs(column - j - db)) for a, b, da, db in inside)

    def old(row: float, column: float) -> float:
        """The value at a place of the new image, in its pixels. Pixel i of the fine image is at place i / 2 of the padded one."""
        centre = (side - 1) / 2
        x, y, _ = old_of_new @ [(column - centre) / side, (row - centre) / side, 1]
        return at(2 * (y * side + centre + side - 1), 2 * (x * side + centre + side - 1))

    around = np.arange(-2 * 3, 2 * (side + 3)) / 2
    sampled = np.array([[old(row, column) for column in around] for row in around])

    def coarser(row: Array) -> Array:
        return np.convolve(row, taps[::-1])[6:][: len(row)][::2][3:-3]

    return np.apply_along_axis(coarser, 1, np.apply_along_axis(coarser, 0, sampled))


def test_images_are_resampled_as_described() -> None:
    how = drawn(count=40, probability=0.9)
    images = PixelScale().to_network(IMAGES.double() / 255)
    ours = augmented(images, how)
    for number in range(0, 40, 5):
        image = images[number, 0].numpy()
        image = image[:, ::-1] if how.mirrored[number, 0] else image
        image = image[::-1] if how.mirrored[number, 1] else image
        np.testing.assert_allclose(ours[number, 0].numpy(), reference(image, how.inverse[number]), rtol=0, atol=1e-12)


def test_a_move_by_whole_pixels_shifts_and_what_comes_in_is_the_mirror_image() -> None:
    images = torch.randn(3, 2, SIDE, SIDE, dtype=torch.float64)
    shifted = moved(images, translation(-2 / SIDE, 1 / SIDE))  # what is shown lay two pixels to the left and one below
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2), mode="reflect")
    torch.testing.assert_close(shifted, padded[:, :, 3 : 3 + SIDE, :SIDE], rtol=0, atol=1e-11)


def test_a_quarter_turn_turns() -> None:
    """The wavelet is not quite symmetric, so that a turn changes pixels a little."""
    ramp = torch.linspace(-1, 1, SIDE, dtype=torch.float64).expand(1, 1, SIDE, SIDE)
    turned = moved(ramp.contiguous(), np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]]))  # what is below lay on the left
    torch.testing.assert_close(turned[:, :, 2:-2, 2:-2], -ramp.mT[:, :, 2:-2, 2:-2], rtol=0, atol=0.05)


def test_images_that_nothing_happens_to_keep_their_bits_and_have_labels_of_zero() -> None:
    how = drawn(count=200)
    images = torch.randn(200, 3, SIDE, SIDE)
    changed = augmented(images, how)
    still = (how.labels == 0).all(axis=1)
    assert 0.15 < still.mean() < 0.35  # half of them are not mirrored; of those, 0.88^5 stay
    assert torch.equal(changed[still], images[still])
    assert all(not torch.equal(changed[number], images[number]) for number in np.flatnonzero(~still))


def test_flips_alone_are_exact() -> None:
    how, images = drawn("xflip", "yflip", count=64, probability=1.0), torch.randn(64, 1, SIDE, SIDE)
    changed = augmented(images, how)
    for number, (left, top) in enumerate(how.labels):
        axes = ([2] if left else []) + ([1] if top else [])
        assert torch.equal(changed[number], images[number].flip(axes))


@pytest.mark.parametrize(
    ("name", "share"), [("xflip", 0.5), ("yflip", 0.06), ("scale", 0.12), ("rotate", 0.12), ("aniso", 0.12), ("translate", 0.12)]
)
def test_each_transform_happens_to_its_share_of_the_images(name: str, share: float) -> None:
    labels = drawn(name, count=20_000).labels
    assert labels.shape[1] == AUGMENTATIONS[name].labels
    assert (labels != 0).any(axis=1).mean() == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 20_000))


def test_amounts_are_distributed_as_in_edm() -> None:
    one = {name: drawn(name, count=20_000, probability=1.0) for name in ("scale", "rotate", "aniso", "translate")}
    for w in (one["scale"].labels[:, 0], *one["translate"].labels.T):
        assert (abs(w.mean()), w.std()) == pytest.approx((0, 1), abs=0.03)
    angles = np.arctan2(one["rotate"].labels[:, 1], one["rotate"].labels[:, 0] + 1)
    assert np.histogram(angles, 8, (-math.pi, math.pi))[0] / 20_000 == pytest.approx(np.full(8, 1 / 8), abs=0.01)
    along, across = one["aniso"].labels.T
    assert (across == 0).mean() == pytest.approx(0.5, abs=0.02)  # stretched along the rows
    assert np.hypot(along, across).std() == pytest.approx(math.sqrt(1 - 2 / math.pi), abs=0.02)  # of |w|, w ~ N(0, 1)


def test_labels_say_what_happened() -> None:
    """The formulas of EDM, appendix F.2, as maps from old places to new ones."""
    forward = lambda name: np.linalg.inv(drawn(name, count=50, probability=1.0).inverse)  # noqa: E731
    for matrix, (w,) in zip(forward("scale"), drawn("scale", count=50, probability=1.0).labels, strict=True):
        np.testing.assert_allclose(matrix, np.diag([2 ** (0.2 * w), 2 ** (0.2 * w), 1]), atol=1e-12)
    for matrix, (less, sin) in zip(forward("rotate"), drawn("rotate", count=50, probability=1.0).labels, strict=True):
        cos = less + 1
        np.testing.assert_allclose(matrix, [[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], atol=1e-12)
    for matrix, label in zip(forward("aniso"), drawn("aniso", count=50, probability=1.0).labels, strict=True):
        size, direction = np.hypot(*label), label * [1, -1] / np.hypot(*label)  # rows go down, angles up
        stretched = matrix[:2, :2] @ direction
        factor = stretched @ direction
        np.testing.assert_allclose(stretched, factor * direction, atol=1e-12)
        assert abs(math.log2(factor)) == pytest.approx(0.2 * size)
        assert np.linalg.det(matrix) == pytest.approx(1)
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    for matrix, (x, y) in zip(forward("translate"), drawn("translate", count=50, probability=1.0).labels, strict=True):
        np.testing.assert_allclose(matrix, translation(x / 8, y / 8), atol=1e-12)


def test_transforms_follow_one_another_in_edms_order() -> None:
    inverses = [drawn(name, count=20, probability=1.0).inverse for name in ("scale", "rotate", "aniso", "translate")]
    forward = [np.linalg.inv(each) for each in inverses]
    together = np.linalg.inv(drawn(count=20, probability=1.0).inverse)
    np.testing.assert_allclose(together, forward[3] @ forward[2] @ forward[1] @ forward[0], atol=1e-12)


def test_a_transform_draws_the_same_whatever_others_there_are() -> None:
    both, alone = drawn("scale", "translate", count=30).labels, drawn("translate", count=30).labels
    np.testing.assert_array_equal(both[:, 1:], alone)
    assert drawn("translate", "xflip").labels.tolist() == drawn("xflip", "translate").labels.tolist()


def trainer(config: str = "C", **changed: Any) -> Trainer:
    small = {"network.multipliers": [1], "network.attention_resolutions": [8], "training.batch": 16}
    recipe = load_recipe(f"digits/{config}", {**small, **ALL, **changed})
    settings = TrajectorySettings(network=recipe.network, diffusion=recipe.diffusion, training=recipe.training, seed=3)
    return Trainer(settings, PixelScale(), IMAGES)


def steps(training: Trainer, count: int) -> dict[str, Tensor]:
    for _ in range(count):
        training.step()
    return training.state()


@pytest.mark.parametrize("config", ["C", "G"])
def test_a_training_that_was_stopped_goes_on_with_the_same_bits(config: str) -> None:
    whole, second = steps(trainer(config), 4), trainer(config)
    second.load_state(steps(trainer(config), 2))
    resumed = steps(second, 2)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_and_micro_batches_share_one_draw(world_size: int) -> None:
    for step in (1, 2):  # the second is an epoch's last, of eight images
        whole = trainer().batches.after(step)
        parts = [part for rank in range(world_size) for part in trainer().batches.after(step).share(rank, world_size, 3)[0]]
        for name in ("images", "augment"):
            torch.testing.assert_close(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name), rtol=0, atol=0)
        assert whole.augment is not None
        assert whole.augment.shape == (len(whole.sigma), 9)


def test_noise_and_order_are_those_of_a_training_without() -> None:
    with_it, without = trainer().batches.after(1), trainer(**{"training.augment": None}).batches.after(1)
    assert torch.equal(with_it.noise, without.noise)
    assert torch.equal(with_it.sigma, without.sigma)
    assert without.augment is None
    assert with_it.augment is not None
    still = (with_it.augment == 0).all(dim=1)
    assert torch.equal(with_it.images[still], without.images[still])


@pytest.mark.parametrize("config", ["C", "G"])
def test_the_network_is_told_and_without_labels_it_takes_images_for_untouched(config: str) -> None:
    training = trainer(config)
    steps(training, 3)
    network, images = training.denoiser.network.eval(), torch.randn(4, 1, SIDE, SIDE)
    c_noise, none, labels = torch.zeros(4), torch.zeros(4, 9), torch.ones(4, 9)
    with torch.no_grad():
        plain = network(images, c_noise)
        assert torch.equal(network(images, c_noise, None, None, none), plain)
        assert not torch.equal(network(images, c_noise, None, None, labels), plain)
    assert bool(network.embedding.augment.weight.grad.abs().sum() > 0)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "flips beside it": ({**ALL, "training.flip": True}, "training.flip, training.augment: .*leave flip out"),
    "an unknown transform": ({"training.augment": {"transforms": ["xflop"]}}, "must be 'xflip', 'yflip'"),
    "one twice": ({"training.augment": {"transforms": ["scale", "scale"]}}, "scale stands more than once"),
    "a probability of nothing": ({"training.augment": {"probability": 0}}, "training.augment.probability"),
    "labels that do not follow": ({**ALL, "network.augment_labels": 3}, "it follows from training.augment, which has 9"),
    "labels without it": ({"network.augment_labels": 9}, "which has 0; leave it out"),
    "another's checkpoint": ({**ALL, "start": {"checkpoint": "/models/model_9.pth"}}, "cannot be told of augmentation"),
}


@pytest.mark.parametrize(("changed", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_recipe("digits/C", changed)


def test_the_labels_are_those_of_the_transforms() -> None:
    some = load_recipe("digits/C", {"training.augment": {"transforms": ["translate", "xflip"]}})
    assert some.network.augment_labels == 3
    assert some.training.augment == AugmentSettings(transforms=("xflip", "translate"))
    assert type(some).model_validate(some.model_dump(mode="json")) == some
    assert load_recipe("digits/C", {"training.augment": {}}).network.augment_labels == 9
