import numpy as np
import pytest

from unet_jax.data.patches import class_coordinates, draw_patch
from unet_jax.labels import IGNORE


def _rng(seed=0):
    return np.random.default_rng(seed)


def _numbered(*shape):
    """An image whose value at a pixel is the pixel's flat index, and such a label."""
    label = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    return label[..., None].astype(np.float32), label


def _coordinates(label, num_classes=4, limit=1000):
    return class_coordinates(label, num_classes=num_classes, limit=limit, rng=_rng())


def test_coordinates_are_the_pixels_of_each_class():
    label = np.array([[0, 1, 1], [IGNORE, 3, 0]], np.int8)
    found = _coordinates(label)
    assert [list(pixels) for pixels in found] == [[0, 5], [1, 2], [], [4]]
    assert all(pixels.dtype == np.int32 for pixels in found)


def test_coordinates_are_limited_a_class_and_spread_over_it():
    label = np.zeros((50, 41), np.int16)
    label[7, 5:8] = 2
    background, absent, rare = _coordinates(label, num_classes=3, limit=400)
    assert len(background) == len(np.unique(background)) == 400
    assert np.all(np.diff(background) > 0)
    assert np.all(label.ravel()[background] == 0)
    assert abs(background.mean() - label.size / 2) < 0.1 * label.size
    assert len(absent) == 0
    assert list(rare) == [7 * 41 + 5, 7 * 41 + 6, 7 * 41 + 7]


@pytest.mark.parametrize(
    ("shape", "patch_size"),
    [((9, 7), (4, 5)), ((9, 7), (9, 7)), ((5, 8, 7), (2, 8, 3)), ((31,), (6,))],
)
@pytest.mark.parametrize("centred", [False, True])
def test_patches_are_contiguous_parts_of_both(shape, patch_size, centred):
    image, label = _numbered(*shape)
    coordinates = _coordinates(label, num_classes=label.size, limit=1)
    for seed in range(20):
        crop, crop_label = draw_patch(
            image,
            label,
            coordinates,
            patch_size=patch_size,
            centred=centred,
            rng=_rng(seed),
        )
        assert crop.shape == (*patch_size, 1)
        assert (crop.dtype, crop_label.dtype) == (np.float32, np.int16)
        np.testing.assert_array_equal(crop[..., 0], crop_label)
        start = np.unravel_index(int(crop_label.flat[0]), shape)
        window = tuple(
            slice(first, first + size)
            for first, size in zip(start, patch_size, strict=True)
        )
        np.testing.assert_array_equal(crop_label, label[window])


def test_uniform_patches_reach_every_position_equally():
    image, label = _numbered(6, 5)
    starts = [
        int(
            draw_patch(
                image,
                label,
                (),
                patch_size=(4, 4),
                centred=False,
                rng=_rng(seed),
            )[1][0, 0]
        )
        for seed in range(600)
    ]
    values, counts = np.unique(starts, return_counts=True)
    assert list(values) == [0, 1, 5, 6, 10, 11]
    assert counts.min() > 60


def test_smaller_images_are_padded_around_and_the_padding_is_ignored():
    image = np.full((3, 10, 2), 5.0, np.float32)
    label = np.full((3, 10), 2, np.int8)
    crop, crop_label = draw_patch(
        image,
        label,
        _coordinates(label),
        patch_size=(8, 4),
        centred=True,
        rng=_rng(),
    )
    assert crop.shape == (8, 4, 2)
    inside = np.zeros((8, 4), bool)
    inside[2:5] = True
    np.testing.assert_array_equal(crop_label, np.where(inside, 2, IGNORE))
    np.testing.assert_array_equal(crop, np.where(inside[..., None], [5.0, 5.0], 0.0))


def test_patches_are_copies():
    image, label = _numbered(4, 4)
    before = image.copy(), label.copy()
    crop, crop_label = draw_patch(
        image, label, (), patch_size=(4, 4), centred=False, rng=_rng()
    )
    crop[:], crop_label[:] = -7, -7
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(label, before[1])


def _two_dots():
    """Class 1 has one pixel, class 3 has 100, class 2 none; far from the border."""
    label = np.zeros((60, 60), np.int16)
    label[15, 15] = 1
    label[40:50, 40:50] = 3
    return np.zeros((60, 60, 1), np.float32), label


def _centres(label, *, centred, draws=900):
    image = np.zeros((*label.shape, 1), np.float32)
    coordinates = _coordinates(label)
    return np.array(
        [
            draw_patch(
                image,
                label,
                coordinates,
                patch_size=(7, 7),
                centred=centred,
                rng=_rng(seed),
            )[1][3, 3]
            for seed in range(draws)
        ]
    )


def test_centred_patches_have_every_present_class_as_often():
    _, label = _two_dots()
    centres = _centres(label, centred=True)
    assert set(centres) == {1, 3}
    assert abs(np.mean(centres == 1) - 0.5) < 0.07


def test_other_patches_are_anywhere():
    _, label = _two_dots()
    centres = _centres(label, centred=False)
    assert abs(np.mean(centres == 3) - 100 / 54**2) < 0.03
    # A uniform position meets the lone pixel of class 1 once in 54 * 54 times.
    assert np.mean(centres == 1) < 0.01


def test_centred_patches_at_the_border_stay_inside_and_hold_the_pixel():
    label = np.zeros((12, 9), np.int16)
    label[0, 8] = 1
    _, crop = draw_patch(
        np.zeros((12, 9, 1), np.float32),
        label,
        _coordinates(label),
        patch_size=(4, 4),
        centred=True,
        rng=_rng(),
    )
    np.testing.assert_array_equal(crop, label[:4, 5:])


def test_background_or_nothing_to_centre_on():
    for value in (0, IGNORE):
        label = np.full((6, 6), value, np.int16)
        _, crop = draw_patch(
            np.zeros((6, 6, 1), np.float32),
            label,
            _coordinates(label),
            patch_size=(3, 3),
            centred=True,
            rng=_rng(),
        )
        np.testing.assert_array_equal(crop, label[:3, :3])


def test_wrong_number_of_axes():
    image, label = _numbered(4, 4)
    with pytest.raises(ValueError, match=r"patch_size \(2, 2, 2\) has 3 axes; exp"):
        draw_patch(
            image,
            label,
            (),
            patch_size=(2, 2, 2),
            centred=False,
            rng=_rng(),
        )


@pytest.mark.parametrize("shape", [(9, 12, 2), (3, 4, 2)])
@pytest.mark.parametrize("centred", [False, True])
def test_a_larger_source_has_the_patch_in_its_middle(shape, centred):
    image, label = _numbered(*shape)
    coordinates = _coordinates(label, num_classes=label.size, limit=1)
    for seed in range(10):
        small, large = (
            draw_patch(
                image,
                label,
                coordinates,
                patch_size=(4, 4, 2),
                source_size=source,
                centred=centred,
                rng=_rng(seed),
            )
            for source in (None, (8, 10, 2))
        )
        for patch, source in zip(small, large, strict=True):
            assert source.shape[:3] == (8, 10, 2)
            np.testing.assert_array_equal(source[2:6, 3:7], patch)
        # Beyond the image nothing is known, and nothing is mirrored.
        inside = large[1] != IGNORE
        assert len(np.unique(large[1][inside])) == inside.sum()
        assert inside.sum() > (small[1] != IGNORE).sum() or shape[0] < 4
