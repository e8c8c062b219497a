import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edm2core.diffusion.latents import between, drawn_labels, latents

SHAPE = (1, 4, 4)


def test_an_images_class_does_not_depend_on_its_batch_and_all_are_as_frequent() -> None:
    labels = drawn_labels(0, 0, range(2000), 10)
    assert torch.equal(drawn_labels(0, 0, [7, 1999, 3], 10), labels[[7, 1999, 3]])
    assert not torch.equal(drawn_labels(0, 1, range(2000), 10), labels)
    assert labels.dtype == torch.int64
    assert all(150 < count < 250 for count in torch.bincount(labels, minlength=10).tolist())


def test_interpolated_latents_keep_their_standard_deviation() -> None:
    ends = latents(0, 0, range(8), (3, 16, 16))
    arc = between(ends[:4], ends[4:], [0.0, 0.25, 0.5, 1.0])
    assert arc.shape == (4, 4, 3, 16, 16)
    torch.testing.assert_close(arc[:, 0], ends[:4])
    torch.testing.assert_close(arc[:, 3], ends[4:])
    assert (arc.std(dim=(2, 3, 4)) - 1).abs().max() < 0.1  # a straight line's middle has 0.71


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**64 - 1), cut=st.integers(0, 6), step=st.integers(0, 18))
def test_an_images_noise_does_not_depend_on_its_batch(seed: int, cut: int, step: int) -> None:
    indices = [5, 0, 49_999, 3, 17, 4]
    whole = latents(seed, 1, indices, SHAPE, step)
    parts = torch.cat([latents(seed, 1, indices[:cut], SHAPE, step), latents(seed, 1, indices[cut:], SHAPE, step)])
    assert torch.equal(whole, parts)


def test_seed_draw_image_and_step_all_change_the_noise() -> None:
    names = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    noises = [latents(seed, draw, [index], (3, 8, 8), step).flatten() for seed, draw, index, step in names]
    correlations = torch.corrcoef(torch.stack(noises)) - torch.eye(len(names))
    assert correlations.abs().max() < 0.3


def test_the_noise_is_standard_normal_and_stays_what_it_is() -> None:
    noise = latents(0, 0, range(200), (3, 8, 8)).numpy()
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    assert abs(np.mean(np.abs(noise) < 1) - 0.6827) < 0.01
    assert latents(7, 1, [3], (4,), 2)[0].tolist() == pytest.approx([-1.94032907, 1.40173006, -0.926292, 0.32647619])
