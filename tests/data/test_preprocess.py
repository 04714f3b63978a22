import itertools
import json
import math

import nibabel
import numpy as np
import pytest
from skimage.transform import resize

from unet_jax.data.case import Case
from unet_jax.data.files.canonical import from_canonical, to_canonical
from unet_jax.data.files.read import read_image
from unet_jax.data.files.write import write_label_map
from unet_jax.data.grids import Inverse, apply_label
from unet_jax.data.intensity import (
    ChannelStatistics,
    ForegroundSample,
    empty_part,
    imaged_statistics,
    nonzero_box,
    nonzero_statistics,
)
from unet_jax.data.preprocess import Preprocessing, fit
from unet_jax.errors import InputError

PALETTE = [(0, 0, 0), (200, 10, 20), (30, 220, 40)]
OBLIQUE = np.array(
    [[1.5, 0.2, 0, -20], [-0.2, 1.1, 0.3, 5], [0.1, -0.3, 2.2, 9], [0, 0, 0, 1]]
)
# The axes that a scanner may store in another order, and which of them run backwards.
STORAGE = [
    ((0, 1, 2), (0,)),
    ((2, 0, 1), (1, 2)),
    ((1, 0, 2), ()),
    ((2, 1, 0), (0, 1, 2)),
    ((0, 2, 1), (2,)),
]


def _preprocessing(**changes):
    options = {
        "network_dims": 3,
        "slice_axis": 2,
        "spacing": None,
        "size": None,
        "crop_nonzero": False,
        "intensity": "zscore",
        "channels": 1,
    }
    return Preprocessing(**{**options, **changes})


def _head(dtype=np.uint8):
    """Make a volume in RAS of two tissues in air, lopsided on every axis."""
    x, y, z = np.meshgrid(*(np.arange(n) for n in (17, 14, 11)), indexing="ij")
    outer = (x - 7) ** 2 / 30 + (y - 7) ** 2 / 25 + (z - 4) ** 2 / 14 < 1
    inner = (x - 6) ** 2 / 9 + (y - 8) ** 2 / 7 + (z - 4) ** 2 / 5 < 1
    noise = np.random.default_rng(0).integers(0, 20, x.shape)
    return ((outer * (60 + noise)) + inner * 120).astype(dtype)


def _stored(volume, affine, order, backwards):
    """Store a volume otherwise, with the affine that says so."""
    move = np.eye(4)[:, [*order, 3]]
    volume = volume.transpose(order)
    for axis in backwards:
        move[:3, 3] += move[:3, axis] * (volume.shape[axis] - 1)
        move[:3, axis] *= -1
        volume = np.flip(volume, axis)
    return volume, affine @ move


def _two_level_model(array):
    """Segment by thresholds: what a network stands for here."""
    return ((array[..., 0] > -0.5).astype(np.uint8) + (array[..., 0] > 1.0)).astype(
        np.uint8
    )


def _labels(inverse, scores):
    """Bring the best class of scores back, by planes along the first axis."""
    bands = iter([(0, scores)])
    planes = inverse.planes(bands, axis=0, num_classes=scores.shape[-1])
    return np.stack([plane.argmax(-1) for plane in planes])


def _segment(path, preprocessing, folder):
    """Go the whole way of predict: file in, label map out."""
    stored = read_image(path)
    image, spacing, orientation = to_canonical(stored.image, stored.affine)
    array, inverse = preprocessing.apply(image, spacing, name=str(path))
    scores = np.eye(3, dtype=np.float32)[_two_level_model(array)]
    labels = from_canonical(_labels(inverse, scores), orientation)
    return write_label_map(folder, stored, labels, PALETTE)


# Orientation.


@pytest.mark.parametrize("affine", [np.diag([1.5, 1.0, 2.0, 1]), OBLIQUE])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("backwards", [(), (0,), (1, 2), (0, 1, 2)])
def test_canonical_is_the_same_for_every_storage(affine, order, backwards):
    volume = np.random.default_rng(0).integers(0, 99, (4, 5, 6, 2))
    stored, stored_affine = _stored(volume[..., 0], affine, order, backwards)
    image = np.stack([stored, stored * 2], axis=-1)
    turned, spacing, orientation = to_canonical(image, stored_affine)
    np.testing.assert_array_equal(turned[..., 0], volume[..., 0])
    np.testing.assert_array_equal(turned[..., 1], volume[..., 0] * 2)
    lengths = np.sqrt((affine[:3, :3] ** 2).sum(0))
    assert spacing == pytest.approx(tuple(lengths), rel=1e-12)
    back = from_canonical(turned[..., 0], orientation)
    np.testing.assert_array_equal(back, stored)


@pytest.mark.parametrize("affine", [np.diag([1.5, 1.0, 2.0, 1]), OBLIQUE])
@pytest.mark.parametrize(
    "spacing", [None, (1.2, 1.3, 1.7)], ids=["as stored", "resampled"]
)
@pytest.mark.parametrize("dims", [2, 3])
def test_storage_and_depth_do_not_change_a_segmentation(
    tmp_path, affine, spacing, dims
):
    preprocessing = _preprocessing(
        spacing=spacing, crop_nonzero=True, network_dims=dims
    )
    volume = _head()
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "plain.nii.gz")
    plain = _segment(tmp_path / "plain.nii.gz", preprocessing, tmp_path / "out")
    expected = np.asarray(nibabel.load(plain).dataobj)
    assert np.bincount(expected.ravel()).min() > 50
    deep = volume.astype(np.uint16) * 257
    for values, (order, backwards) in itertools.product((volume, deep), STORAGE):
        stored, stored_affine = _stored(values, affine, order, backwards)
        path = tmp_path / "other.nii"
        nibabel.save(nibabel.Nifti1Image(stored, stored_affine), path)
        written = nibabel.load(_segment(path, preprocessing, tmp_path / "out"))
        there, _ = _stored(expected, affine, order, backwards)
        np.testing.assert_array_equal(np.asarray(written.dataobj), there)
        np.testing.assert_allclose(written.affine, stored_affine, atol=1e-5)


# Intensities.


def test_zscore_over_nonzero_pixels_of_each_channel():
    image = np.zeros((5, 7, 2), np.int16)
    image[1:, :, 0] = np.arange(28).reshape(4, 7) + 1
    image[:, 2:, 1] = 4
    array, _ = _preprocessing(channels=2, network_dims=2).apply(image, None)
    inside = array[1:, :, 0]
    assert array.dtype == np.float32
    assert inside.mean() == pytest.approx(0, abs=1e-6)
    assert inside.std() == pytest.approx(1, abs=1e-6)
    # Zero goes through the same line, and stays the darkest.
    assert array[0, 0, 0] == pytest.approx(-14.5 / np.arange(1, 29).std(), rel=1e-6)
    # No variation: only the mean is subtracted.
    np.testing.assert_array_equal(array[..., 1], image[..., 1] - 4.0)


@pytest.mark.parametrize("spacing", [None, (2.0, 2.0, 2.0)])
def test_empty_pixels_do_not_move_with_the_intensities_of_the_head(spacing):
    head = np.pad(_head()[..., None], [(9, 4), (6, 6), (5, 7), (0, 0)])
    preprocessing = _preprocessing(zero_outside=True, spacing=spacing)
    one, _ = preprocessing.apply(head, (1.0, 1.0, 1.0))
    # Another scanner, whose zeros are still zero.
    other, _ = preprocessing.apply(np.where(head, head * 3.0 + 500, 0), (1.0, 1.0, 1.0))
    assert np.all(one[:3] == 0)
    assert np.all(other[:3] == 0)
    np.testing.assert_allclose(other, one, atol=1e-5)
    if spacing is None:
        nonzero = head[head != 0]
        low, high = np.percentile(nonzero, (2, 98))
        inside = one[head >= low + (high - low) / 10]
        assert abs(inside.mean()) < 1e-5
        assert abs(inside.std() - 1) < 1e-5


def test_noise_of_the_air_does_not_change_the_scale_of_the_head():
    random = np.random.default_rng(0)
    clean = np.pad(random.normal(100.0, 15.0, (14, 14, 14)), 8)
    noisy = np.where(clean, clean, random.rayleigh(2.0, clean.shape))
    np.testing.assert_allclose(
        imaged_statistics(noisy), imaged_statistics(clean), rtol=0.15
    )
    assert nonzero_statistics(noisy)[0] < 0.5 * nonzero_statistics(clean)[0]
    assert imaged_statistics(np.zeros((3, 3))) == (0.0, 1.0)


def test_a_view_leaves_the_same_pixels_empty_as_the_whole_image():
    head = np.pad(_head()[..., None], 5)[..., 5:6]
    view, _ = _preprocessing(zero_outside=True).view(head, None)
    whole = np.asarray(view)
    turned = view.transpose((2, 0, 1, 3))
    np.testing.assert_array_equal(view[3:9, :, 4], whole[3:9, :, 4])
    np.testing.assert_array_equal(turned[6], whole[:, :, 6])
    np.testing.assert_array_equal(view.channel(0), whole[..., 0])


def test_zeros_among_noise_and_inside_of_the_head_are_intensities():
    noise = np.random.default_rng(0).integers(0, 3, (30, 30))
    image = np.pad(noise, 10)
    image[22:25, 22:25] = 0  # a ventricle, smaller than what counts as empty
    empty = empty_part(image[..., None])
    assert not empty[11:39, 11:39].any()
    assert empty[:8].all()
    sides = [stop - start for start, stop in nonzero_box(image[..., None])]
    assert np.prod(sides) / image.size == pytest.approx(0.36, abs=0.03)
    assert empty_part(np.zeros((4, 3, 1))).all()
    assert not empty_part(np.ones((4, 3, 1))).any()


@pytest.mark.parametrize("value", [0, 7, 0.1, 1e12])
def test_constant_images_stay_finite(value):
    image = np.full((6, 5, 7, 1), value, np.float32)
    array, inverse = _preprocessing(crop_nonzero=True).apply(image, None)
    np.testing.assert_array_equal(array, 0)
    assert inverse.grid == (6, 5, 7)


@pytest.mark.parametrize("intensity", ["zscore", "full_range"])
def test_16_bit_copy_gives_the_same_array(intensity):
    image = np.random.default_rng(1).integers(0, 256, (9, 8, 7, 1), dtype=np.uint8)
    preprocessing = _preprocessing(intensity=intensity)
    one, _ = preprocessing.apply(image, None)
    two, _ = preprocessing.apply(image.astype(np.uint16) * 257, None)
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-5)


def test_full_range_of_every_dtype():
    preprocessing = _preprocessing(intensity="full_range", network_dims=2)
    for white in (np.uint8(255), np.uint16(65535), np.float32(1), np.float64(1)):
        image = np.array([[0.0, 0.2, 1.0]])[..., None] * white
        array, _ = preprocessing.apply(image.astype(white.dtype), None)
        np.testing.assert_allclose(array[0, :, 0], [-1, -0.6, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.array([[0.0, 255.0]]), "floats from 0 to 255"),
        (np.array([[-0.5, 0.5]]), r"floats from -0\.5 to 0\.5"),
        (np.array([[0, 255]], np.int32), "int32 values"),
    ],
)
def test_full_range_refuses_an_unknown_white(image, found):
    preprocessing = _preprocessing(intensity="full_range", network_dims=2)
    text = rf"^p\.tif: {found}; expected uint8, uint16 or floats from 0 to 1.*zscore"
    with pytest.raises(InputError, match=text):
        preprocessing.apply(image[..., None], None, name="p.tif")


# Grids.


def test_crop_keeps_what_any_channel_has():
    image = np.zeros((9, 8, 7, 2), np.uint8)
    image[2, 3, 4, 0] = 5
    image[5, 3, 1, 1] = 6
    array, inverse = _preprocessing(channels=2, crop_nonzero=True).apply(image, None)
    assert inverse.box == ((2, 6), (3, 4), (1, 5))
    assert array.shape == (4, 1, 4, 2)
    labels = np.arange(16, dtype=np.uint8).reshape(4, 1, 4) + 1
    whole = _labels(inverse, np.eye(17, dtype=np.float32)[labels])
    assert whole.shape == (9, 8, 7)
    np.testing.assert_array_equal(whole[2:6, 3:4, 1:5], labels)
    assert np.count_nonzero(whole) == 16
    np.testing.assert_array_equal(apply_label(whole, inverse), labels)


@pytest.mark.parametrize("target", [(1.0, 1.0, 1.0), (0.7, 2.9, 0.31), (9, 9, 9)])
def test_resampling_is_that_of_skimage(target):
    image = np.random.default_rng(2).random((11, 6, 9, 2)).astype(np.float32)
    preprocessing = _preprocessing(spacing=target, intensity="full_range", channels=2)
    array, inverse = preprocessing.apply(image, (1.0, 2.0, 0.5))
    shape = tuple(
        max(1, round(size * old / new))
        for size, old, new in zip((11, 6, 9), (1.0, 2.0, 0.5), target, strict=True)
    )
    assert inverse.grid == shape
    expected = resize(
        image * 2 - 1, (*shape, 2), order=1, mode="edge", anti_aliasing=True
    )
    np.testing.assert_allclose(array, expected, atol=1e-5)


def test_a_slice_network_leaves_the_slice_axis():
    image = np.random.default_rng(2).random((12, 10, 8, 1)).astype(np.float32)
    for axis, grid in ((0, (12, 5, 4)), (1, (6, 10, 4)), (2, (6, 5, 8))):
        preprocessing = _preprocessing(
            network_dims=2, slice_axis=axis, spacing=(2, 2, 2), intensity="full_range"
        )
        array, inverse = preprocessing.apply(image, (1, 1, 1))
        assert inverse.grid == grid
        # Every slice is resampled by itself.
        one = np.take(array, [3], axis)
        alone, _ = preprocessing.apply(np.take(image, [3], axis), (1, 1, 1))
        np.testing.assert_allclose(one, alone, atol=1e-6)


def test_pictures_take_the_plane_of_the_training_slices():
    preprocessing = _preprocessing(network_dims=2, slice_axis=0, spacing=(9, 2, 4))
    image = np.random.default_rng(2).integers(0, 9, (12, 8, 1))
    assert preprocessing.apply(image, (1, 1))[1].grid == (6, 2)
    assert preprocessing.apply(image, None)[1].grid == (12, 8)


@pytest.mark.parametrize("shape", [(7, 9), (31, 13), (1, 5), (16, 16)])
def test_pictures_are_resized_and_come_back(shape):
    preprocessing = _preprocessing(
        network_dims=2, size=(15, 17), channels=3, intensity="full_range"
    )
    image = np.random.default_rng(2).integers(0, 256, (*shape, 3), dtype=np.uint8)
    array, inverse = preprocessing.apply(image, None)
    assert array.shape == (15, 17, 3)
    scores = np.random.default_rng(3).random((15, 17, 4)).astype(np.float32)
    assert _labels(inverse, scores).shape == shape


# The way back.


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_scores_are_interpolated_then_compared(dtype):
    inverse = Inverse((7, 9, 5), ((0, 7), (0, 9), (0, 5)), (4, 13, 5))
    scores = np.random.default_rng(4).random((4, 13, 5, 3)).astype(dtype)
    expected = resize(
        scores.astype(np.float32),
        (7, 9, 5, 3),
        order=1,
        mode="edge",
        anti_aliasing=False,
    ).argmax(-1)
    labels = _labels(inverse, scores)
    np.testing.assert_array_equal(labels, expected)


def test_without_resampling_scores_become_argmax():
    inverse = Inverse((6, 5), ((0, 6), (0, 5)), (6, 5))
    scores = np.random.default_rng(4).integers(0, 3, (6, 5, 4)).astype(np.float32)
    np.testing.assert_array_equal(_labels(inverse, scores), scores.argmax(-1))


def test_labels_move_exactly_with_the_image():
    # A step edge: where the image passes its middle, the label changes.
    image = np.zeros((20, 6, 8, 1), np.uint8)
    image[9:] = 255
    label = (image[..., 0] > 0).astype(np.int16)
    preprocessing = _preprocessing(spacing=(0.3, 1, 2.1), intensity="full_range")
    array, inverse = preprocessing.apply(image, (1, 1, 1))
    moved = apply_label(label, inverse)
    assert moved.dtype == np.int16
    assert moved.shape == array.shape[:-1]
    np.testing.assert_array_equal(moved == 1, array[..., 0] > 0)


def test_a_label_of_another_size_is_refused():
    inverse = Inverse((6, 5), ((0, 6), (0, 5)), (3, 4))
    with pytest.raises(ValueError, match=r"Label of \(3, 4\) for an image of \(6, 5\)"):
        apply_label(np.zeros((3, 4), np.uint8), inverse)


# What is refused.


def test_wrong_channels_and_axes_are_named():
    text = r"^p\.png: 3 channels; expected 1 as in training; convert it \(RGB to grey"
    with pytest.raises(InputError, match=text):
        _preprocessing(network_dims=2).apply(np.zeros((5, 6, 3)), None, name="p.png")
    text = r"^p\.png: 2 spatial axes; expected 3, .*NIfTI or a TIFF stack"
    with pytest.raises(InputError, match=text):
        _preprocessing().apply(np.zeros((5, 6, 1)), None, name="p.png")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"network_dims": 4}, r"Unknown network_dims 4; expected one of \(2, 3\)"),
        ({"slice_axis": 3}, r"Unknown slice_axis 3; expected one of \(0, 1, 2\)"),
        ({"intensity": "minmax"}, r"found 'minmax', expected one of"),
        ({"size": (8, 8)}, r"size \(8, 8\) is for a 2-D network"),
        ({"spacing": (1, 0, 1)}, r"spacing \(1, 0, 1\) must be positive"),
    ],
)
def test_bad_settings_are_refused(changes, text):
    with pytest.raises(ValueError, match=text):
        _preprocessing(**changes)


# Saving.


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"network_dims": 2, "size": (31, 33), "intensity": "full_range"},
        {
            "spacing": (1 / 3, 0.1, math.pi),
            "intensity": "percentile",
            "channels": 2,
            "statistics": (
                ChannelStatistics(-1000.1, 2 / 3, 1e-9, 4.0),
                ChannelStatistics(0.0, 1.0, 0.3, 0.7),
            ),
        },
    ],
)
def test_json_round_trip_is_exact(changes):
    preprocessing = _preprocessing(**changes)
    plain = preprocessing.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    again = Preprocessing.from_dict(json.loads(json.dumps(plain)))
    assert again == preprocessing
    assert hash(again) == hash(preprocessing)


def test_a_damaged_record_is_refused():
    plain = _preprocessing().to_dict()
    del plain["spacing"]
    plain["spaces"] = None
    text = r"keys \['spaces', 'spacing'\] are missing or unknown.*config\.json"
    with pytest.raises(InputError, match=text):
        Preprocessing.from_dict(plain)


# Learning from the training split.


def test_a_slab_with_the_reference_of_its_scan_is_the_scan_cut_afterwards():
    volume = _head()[..., None]
    preprocessing = _preprocessing(network_dims=2)
    whole, _ = preprocessing.apply(volume, None)
    inside = volume[volume > 0].astype(np.float64)
    reference = ((inside.mean(), inside.std()),)
    slab, _ = preprocessing.apply(volume[:, :, 3:6], None, reference=reference)
    np.testing.assert_allclose(slab, whole[:, :, 3:6], rtol=1e-5, atol=1e-6)
    own, _ = preprocessing.apply(volume[:, :, 3:6], None)
    assert np.abs(own - slab).max() > 0.1


def _case(number, *, spacing=(1.0, 1.0, 2.0), channels=1, shape=(6, 7, 8)):
    random = np.random.default_rng(number)
    image = random.normal(40, 25, (*shape, channels)).astype(np.float32)
    label = random.integers(-1, 3, shape)
    return Case(f"case{number}", image, label, spacing, f"case{number}")


def _fit(cases, **changes):
    options = {
        "network_dims": 3,
        "slice_axis": 2,
        "spacing": "median",
        "size": None,
        "crop_nonzero": True,
        "intensity": "zscore",
    }
    return fit(cases, **{**options, **changes})


def test_fit_takes_the_median_spacing():
    spacings = [(1, 1, 2.0), (3, 1, 4.0), (2, 0.5, 9.0)]
    cases = (_case(i, spacing=spacing) for i, spacing in enumerate(spacings))
    learnt = _fit(cases)
    assert learnt == _preprocessing(spacing=(2.0, 1.0, 4.0), crop_nonzero=True)
    assert all(type(part) is float for part in learnt.spacing)
    assert _fit([_case(0)], spacing=None).spacing is None
    assert _fit([_case(0)], spacing=(1, 2, 3)).spacing == (1, 2, 3)
    assert _fit([_case(0, spacing=None)]).spacing is None
    sized = _fit([_case(0, shape=(6, 7), spacing=(1, 1))], network_dims=2, size=(4, 4))
    assert (sized.spacing, sized.size) == (None, (4, 4))


def test_fit_percentiles_of_the_foreground():
    cases = [_case(i, channels=2) for i in range(4)]
    learnt = _fit(cases, intensity="percentile")
    for channel, line in enumerate(learnt.statistics):
        values = np.concatenate([c.image[c.label > 0, channel] for c in cases])
        values = values.astype(np.float64)
        lower, upper = np.percentile(values, [0.5, 99.5])
        clipped = values.clip(lower, upper)
        expected = (lower, upper, clipped.mean(), clipped.std())
        assert line == pytest.approx(expected, rel=1e-6)
    arrays = [learnt.apply(c.image, c.spacing)[0][c.label > 0] for c in cases]
    normalised = np.concatenate(arrays)
    np.testing.assert_allclose(normalised.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(normalised.std(0), 1, atol=1e-5)
    assert json.loads(json.dumps(learnt.to_dict())) == learnt.to_dict()


def test_the_sample_is_bounded_fair_and_repeatable():
    def draw():
        sample = ForegroundSample(limit=500)
        for number in range(6):
            image = np.full((20, 20, 1), number, np.uint8)
            label = np.zeros((20, 20), np.uint8)
            label[: 20 if number else 2] = 1
            sample.add(Case(f"c{number}", image, label, None, f"c{number}"))
            assert len(sample.values) <= 500
        return sample.values

    values = draw()
    np.testing.assert_array_equal(values, draw())
    # 40 pixels of class 0 in the first case and 400 in each of the other five.
    fractions = np.bincount(values[:, 0], minlength=6) / 500
    np.testing.assert_allclose(fractions, np.array([40] + [400] * 5) / 2040, atol=0.05)


def test_percentiles_without_labels_are_those_of_what_is_not_air():
    values = np.zeros((4, 5, 6, 1))
    values[1:] = np.random.default_rng(0).normal(100, 20, (3, 5, 6, 1))
    marked = (values[..., 0] != 0).astype(int)
    with_labels, without = (
        _fit([Case("a", values, label, None, "a")], intensity="percentile")
        for label in (marked, None)
    )
    assert with_labels.statistics == without.statistics
    assert with_labels.statistics[0].lower > 20


def test_fit_refuses_what_does_not_go_together():
    text = r"channels: 1 in case case0, 2 in case case1; expected the same"
    with pytest.raises(InputError, match=text):
        _fit([_case(0), _case(1, channels=2)])
    with pytest.raises(
        InputError, match="spatial axes: 3 in case case0, 2 in case case"
    ):
        _fit([_case(0), _case(1, shape=(5, 6), spacing=(1, 1))])
    with pytest.raises(InputError, match="known spacing: True in case case0, False in"):
        _fit([_case(0), _case(1, spacing=None)])
    with pytest.raises(InputError, match="training split: 0 cases; expected one"):
        _fit([])
    with pytest.raises(InputError, match=r"spacing \(1, 1\): 2 values; expected 3"):
        _fit([_case(0)], spacing=(1, 1))
    empty = Case("e", np.ones((4, 5, 6, 1)), np.zeros((4, 5, 6), int), None, "e")
    with pytest.raises(InputError, match=r"no labelled foreground.*choose 'zscore'"):
        _fit([empty], intensity="percentile")
