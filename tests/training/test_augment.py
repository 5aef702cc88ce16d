"""Augmentation: geometry stays inside the image, mixing shares are correct, every image has its own generator."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spatialnet_training.data.augmentation import (
    Mix,
    cutmix,
    drop_bands,
    drop_groups,
    erase,
    mixup,
    normalise,
    oriented,
    random_view,
    recolour,
    standardise,
    warp,
)
from spatialnet_training.data.bands import groups_named
from spatialnet_training.data.dataloader import OnHost, alike_in_pairs
from spatialnet_training.data.device_cache import Resident


@settings(deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([32, 48, 96]))
def test_a_warp_stays_inside_the_image(seed: int, size: int) -> None:
    rows, columns = np.mgrid[0:100, 0:100].astype(np.uint8)
    image = np.dstack([columns, rows, np.full_like(rows, 200)])
    warped = warp(image, random_view(100, 100, size, np.random.default_rng(seed)), size).astype(int)
    assert warped.shape == (size, size, 3)
    assert (warped[..., 2] == 200).all()
    horizontal, vertical = np.ptp(warped[..., 0]), np.ptp(warped[..., 1])
    assert min(horizontal, vertical) >= 45
    assert max(horizontal, vertical) <= 99
    gradient = np.abs(np.diff(warped[..., 0], axis=1)).mean(), np.abs(np.diff(warped[..., 0], axis=0)).mean()
    assert min(gradient) == pytest.approx(0, abs=0.1)  # axis-parallel: one of the eight symmetries, no reflection inside


def test_all_eight_symmetries_occur() -> None:
    rows, columns = np.mgrid[0:64, 0:64]
    image = np.repeat((2 * columns + rows)[..., None], 3, axis=2).astype(np.uint8)  # steeper to the right than downwards
    seen = set()
    for seed in range(100):
        warped = warp(image, random_view(64, 64, 16, np.random.default_rng(seed)), 16)[..., 0].astype(float)
        down, right = np.gradient(warped)[0].mean(), np.gradient(warped)[1].mean()
        seen.add((down > 0, right > 0, abs(right) > abs(down)))
    assert len(seen) == 8


def test_a_batch_can_be_turned_into_each_of_them() -> None:
    x = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    turned = [oriented(x, orientation) for orientation in range(8)]
    assert torch.equal(turned[0], x)
    assert len({tuple(each[0, 0].flatten().tolist()) for each in turned}) == 8
    for each in turned:
        assert each.stride() == x.stride()  # as a compiled network expects
        assert torch.equal(each.flatten(2).sort(dim=2).values, x.flatten(2))


def test_more_than_four_bands_are_warped_alike() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 1), np.uint8)
    warped = warp(np.repeat(image, 13, axis=2), random_view(40, 40, 32, np.random.default_rng(5)), 32)
    assert warped.shape == (32, 32, 13)
    assert (warped == warped[..., :1]).all()


def test_augmentation_does_not_depend_on_the_batch() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)

    def augmented(rows: slice) -> torch.Tensor:
        rngs = [np.random.default_rng([1, index]) for index in range(6)[rows]]
        return erase(recolour(normalise(pixels[rows]), rngs), rngs)

    whole = augmented(slice(0, 6))
    assert torch.equal(whole[4:], augmented(slice(4, 6)))
    assert not torch.allclose(whole, normalise(pixels), atol=0.05)


def test_zero_strength_does_not_change_colour() -> None:
    x = normalise(np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8))
    rngs = [np.random.default_rng(index) for index in range(4)]
    torch.testing.assert_close(recolour(x.clone(), rngs, 0.0), x)


@settings(deadline=None)
@given(st.integers(0, 2**31))
def test_cutmix_says_how_much_of_each_image_is_left(seed: int) -> None:
    x = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 32, 32).contiguous()
    mixed, mix = cutmix(x, np.random.default_rng(seed))
    for row, neighbour in ((0, 1), (1, 0), (2, 3), (3, 2)):
        assert float((mixed[row] == x[row]).float().mean()) == pytest.approx(mix.share)
        assert set(mixed[row].unique().tolist()) <= {float(row), float(neighbour)}


def test_mixup_blends_each_image_with_its_neighbour() -> None:
    x = torch.tensor([0.0, 10.0, 20.0, 40.0]).view(4, 1, 1, 1)
    mixed, mix = mixup(x, np.random.default_rng(3), 0.4)
    expected = mix.share * x + (1 - mix.share) * torch.tensor([10.0, 0.0, 40.0, 20.0]).view(4, 1, 1, 1)
    torch.testing.assert_close(mixed, expected)
    assert Mix.partner(torch.tensor([1, 2, 3, 4])).tolist() == [2, 1, 4, 3]


def test_groups_are_dropped_at_random_but_never_all() -> None:
    rngs = [np.random.default_rng(index) for index in range(200)]
    own = np.tile(np.array([[1, 1, 0], [0, 0, 1]], np.float32), (100, 1))
    present = drop_groups(own, rngs, 0.9)
    assert (present.sum(dim=1) >= 1).all()
    assert present.mean() < 0.6
    assert (present.numpy() <= own).all()  # a missing group is never marked as present
    assert np.array_equal(drop_groups(own, rngs, 0.0).numpy(), own)
    assert (drop_groups(np.zeros((2, 3), np.float32), rngs[:2], 0.5) == 0).all()  # a black image


def test_the_two_images_of_a_pair_have_the_same_bands() -> None:
    groups_of = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    rows = np.arange(6)
    paired = alike_in_pairs(rows, groups_of)
    assert len(paired) == 6
    assert all(np.array_equal(groups_of[a], groups_of[b]) for a, b in paired.reshape(-1, 2))
    assert {0, 2, 1, 3} <= set(paired.tolist())


@pytest.mark.parametrize("size", [16, 64])
def test_views_made_on_the_device_are_those_made_by_opencv(size: int) -> None:
    """Images of several shapes and 13 bands, with views of the whole, of parts and beyond the edges."""
    rng = np.random.default_rng(2)
    images = [rng.integers(0, 256, (*side, 13), np.uint8) for side in ((40, 56), (64, 64), (33, 20))]
    rows = np.array([2, 0, 1, 0, 2])
    views = np.stack([random_view(*images[row].shape[:2], size, rng) for row in rows])
    views[3, :, 2] -= 20  # mirrored on the left and above
    views[4, :, 2] += 20  # and on the right and below
    made = Resident.on(torch.device("cpu"), images).warp(rows, views, size)
    expected = OnHost(images).warp(rows, views, size)
    assert made.shape == (5, 13, size, size)
    difference = (made - expected).abs()
    assert difference.mean() < 1
    assert difference.max() < 10  # OpenCV's interpolation has a resolution of 1/32 pixel


def test_single_bands_of_measured_groups_are_dropped_and_one_is_kept() -> None:
    groups = groups_named(("rgb", "swir", "sar", "nir"))
    levels = torch.full((200, 8, 4, 4), 200.0)
    x = drop_bands(standardise(levels), groups, [np.random.default_rng(seed) for seed in range(200)], 0.5)
    zero, kept = standardise(torch.zeros(1, 8, 4, 4))[0, :, 0, 0], standardise(levels)[0, :, 0, 0]
    dropped = x[:, :, 0, 0] == zero
    assert ((x[:, :, 3, 3] == kept) != dropped).all()
    assert not dropped[:, [0, 1, 2, 7]].any()  # colours, and groups of one band
    assert not (dropped[:, 3] & dropped[:, 4]).any()
    assert not (dropped[:, 5] & dropped[:, 6]).any()
    assert 0.15 < dropped[:, 3:7].float().mean() < 0.35  # half of the half that may be dropped
