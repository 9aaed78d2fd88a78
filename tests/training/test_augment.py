"""Augmentations against plain NumPy, and their randomness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from llfc_jax.training import augmentations as A

KEYS = jax.random.split(jax.random.key(0), 64)
IMAGE = np.asarray(jax.random.uniform(jax.random.key(1), (6, 6, 2)))


def many(name, strength, image=IMAGE):
    """The same image changed with 64 keys."""
    change = A.AUGMENTATIONS[name].apply
    return np.asarray(jax.jit(jax.vmap(lambda key: change(key, image, strength)))(KEYS))


def test_crop_gives_all_shifts_and_nothing_else():
    padded = np.pad(IMAGE, ((1, 1), (1, 1), (0, 0)))
    shifts = [padded[r : r + 6, c : c + 6] for r in range(3) for c in range(3)]
    seen = {
        next(i for i, shift in enumerate(shifts) if np.array_equal(shift, out))
        for out in many("crop", 1)
    }
    assert seen == set(range(9))


def test_flip_has_its_probability():
    flipped = [np.array_equal(out, IMAGE[:, ::-1]) for out in many("flip", 0.25)]
    kept = [np.array_equal(out, IMAGE) for out in many("flip", 0.25)]
    assert np.logical_xor(flipped, kept).all()
    assert 6 <= sum(flipped) <= 28


def test_cutout_sets_a_square_to_zero():
    zeros = (many("cutout", 3) == 0).all(-1)
    assert {2 * 2, 2 * 3, 3 * 3} == set(zeros.sum((1, 2)).tolist())
    for mask in zeros:
        rows, columns = mask.any(1), mask.any(0)
        assert rows.sum() * columns.sum() == mask.sum()


def test_rotation_by_right_angles_is_exact_and_small_ones_are_bounded(monkeypatch):
    monkeypatch.setattr(A, "_uniform", lambda key, low, high: jnp.float32(high))
    for strength, turns in ((90.0, 1), (180.0, 2)):
        turned = A.rotate(KEYS[0], jnp.asarray(IMAGE), strength)
        assert min(
            np.abs(turned - np.rot90(IMAGE, sign * turns)).max() for sign in (1, -1)
        ) == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(A.rotate(KEYS[0], jnp.asarray(IMAGE), 0.0), IMAGE, atol=1e-6)


@pytest.mark.parametrize("angle", [-33.0, 7.5, 140.0])
def test_rotation_by_any_angle_is_scipys(angle, monkeypatch):
    monkeypatch.setattr(A, "_uniform", lambda key, low, high: jnp.float32(high))
    image = np.asarray(jax.random.uniform(jax.random.key(2), (9, 6, 2)))
    turned = A.rotate(KEYS[0], jnp.asarray(image), angle)
    expected = ndimage.rotate(image, -angle, reshape=False, order=1, mode="grid-constant")
    np.testing.assert_allclose(turned, expected, atol=2e-5)


def test_resized_crop_is_scipys_bilinear_sampling_of_the_part_drawn():
    image = np.asarray(jax.random.uniform(jax.random.key(3), (9, 7, 2)))
    for key, out in zip(KEYS[:8], many("resized_crop", 0.3, image), strict=False):
        for_area, for_ratio, for_place = jax.random.split(key, 3)
        area = jax.random.uniform(for_area, minval=0.3)
        ratio = np.exp(jax.random.uniform(for_ratio, minval=np.log(3 / 4), maxval=np.log(4 / 3)))
        shares = np.minimum(np.sqrt([area / ratio, area * ratio]), 1)
        corners = np.asarray(jax.random.uniform(for_place, (2,))) * (1 - shares)
        where = [
            (corner * n + (np.arange(n) + 0.5) * share) - 0.5
            for corner, share, n in zip(corners, shares, image.shape, strict=False)
        ]
        grid = np.meshgrid(*where, indexing="ij")
        for channel in range(2):
            expected = ndimage.map_coordinates(image[..., channel], grid, order=1, mode="nearest")
            np.testing.assert_allclose(out[..., channel], expected, atol=1e-4)


def test_resized_crop_scales_linearly():
    """On a plane a part scaled up is a plane again, less steep by the sides' shares."""
    rows, columns = np.mgrid[:12, :12].astype(np.float32)
    plane = np.stack([rows, columns], -1)
    outs = many("resized_crop", 0.25, plane)[:, 3:-3, 3:-3]  # away from the border's clamping
    steps = np.diff(outs[..., 0], axis=1), np.diff(outs[..., 1], axis=2)
    shares = [step.mean((1, 2)) for step in steps]
    for step, share in zip(steps, shares, strict=True):
        np.testing.assert_allclose(step, share[:, None, None] * np.ones_like(step), atol=1e-3)
    area = shares[0] * shares[1]
    assert 0.2 < area.min() < 0.4
    assert 0.8 < area.max() <= 1.001
    assert (shares[1] / shares[0]).min() > 0.74
    assert (shares[1] / shares[0]).max() < 1.35


def test_every_sample_and_replica_has_its_own_randomness():
    images = jnp.broadcast_to(IMAGE, (32, *IMAGE.shape))
    strengths = {"crop": 2, "flip": 0.5, "cutout": 2}
    change = jax.jit(jax.vmap(lambda key: A.augment(key, images, strengths)))
    out = np.asarray(change(KEYS[:2])).reshape(2, 32, -1)
    assert len({row.tobytes() for row in out[0]}) > 20
    assert not np.array_equal(out[0], out[1])
    np.testing.assert_array_equal(A.augment(KEYS[0], images, {}), images)
