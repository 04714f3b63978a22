"""Tests reading TFDS sets through TfdsSource, and what it refuses."""

import io
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from unet_jax.data.memory import CaseMemory
from unet_jax.data.tfds.source import TfdsSource
from unet_jax.errors import InputError

TRIMAP = ((1, 1), (2, 0), (3, 2))


def _jpeg(image):
    buffer = io.BytesIO()
    image.save(buffer, format="jpeg", quality=95)
    return buffer.getvalue()


def _pets(pets_dir, split="train", **options):
    options = {"label_key": "segmentation_mask", "label_map": TRIMAP} | options
    return TfdsSource(
        name="oxford_iiit_pet",
        split=split,
        data_dir=pets_dir,
        num_classes=3,
        **options,
    )


def test_pets_through_the_same_class(pets_dir, pet_pictures):
    source = _pets(pets_dir, id_key="file_name")
    assert len(source) == 5
    cases = {case.id: case for case in (source[index] for index in range(5))}
    lookup = np.array([99, 1, 0, 2])
    for name, image, mask in pet_pictures[:5]:
        case = cases[f"{name}.jpg"]
        assert case.image.shape == image.shape
        assert case.image.dtype == np.uint8
        np.testing.assert_allclose(case.image.astype(int), image, atol=2)
        np.testing.assert_array_equal(case.label, lookup[mask])
        assert case.label.dtype == np.int16
        assert case.spacing is None
        assert case.group == case.id


def test_ids_are_the_same_in_every_part_of_a_split(pets_dir):
    whole = {case.id: case.image.shape for case in _pets(pets_dir)}
    assert len(whole) == 5
    parts = [*_pets(pets_dir, "train[:40%]"), *_pets(pets_dir, "train[40%:]")]
    assert [case.id for case in parts] == list(whole)
    assert repr(parts[3].id) in _pets(pets_dir).where(3)
    assert {case.id: case.image.shape for case in parts} == whole
    assert not {case.id for case in _pets(pets_dir, "test")} & set(whole)


def test_group_key(pets_dir):
    source = _pets(pets_dir, group_key="species")
    assert {case.group for case in source} == {"0"}
    assert source.extent() == (1, 5)
    assert _pets(pets_dir).extent() == (5, 5)


def test_index_past_the_end_is_an_index_error(pets_dir):
    with pytest.raises(IndexError, match="case 5 of 5"):
        _pets(pets_dir)[5]


def test_a_pickled_source_reads_the_same(pets_dir):
    source = _pets(pets_dir)
    first = source[3]
    copy = pickle.loads(pickle.dumps(source))
    assert copy[3].id == first.id
    np.testing.assert_array_equal(copy[3].image, first.image)


def test_a_case_in_memory_is_read_once_until_it_is_released(pets_dir, monkeypatch):
    source = _pets(pets_dir, memory=CaseMemory(10**6))
    reads = []
    example = source._records.example
    monkeypatch.setattr(
        source._records,
        "example",
        lambda index, features: reads.append(index) or example(index, features),
    )
    first = [source[index] for index in range(5)]
    for index in range(5):
        np.testing.assert_array_equal(source[index].image, first[index].image)
    assert reads == [0, 1, 2, 3, 4]
    assert source.held_bytes == sum(c.image.nbytes + c.label.nbytes for c in first)
    for index in range(5):
        source.release(index)
    assert source.held_bytes == 0
    source[2]
    assert reads == [0, 1, 2, 3, 4, 2]
    assert source.held_bytes == 0


# Arrays instead of pictures.


def _arrays(store, tmp_path, image, label, **options):
    """A set of one example with these two arrays, opened."""
    features = {
        key: tfds.features.Tensor(
            shape=(None,) * value.ndim,
            dtype=value.dtype.type,
            encoding=tfds.features.Encoding.ZLIB,
        )
        for key, value in (("image", image), ("label", label))
    }
    rows = [("a", {"image": image, "label": label})]
    store(tmp_path, name="arrays", features=features, splits={"train": rows})
    return TfdsSource(
        name="arrays", split="train", data_dir=tmp_path, num_classes=2, **options
    )


@pytest.mark.parametrize("image_shape", [(6, 7), (6, 7, 1)])
@pytest.mark.parametrize("label_shape", [(6, 7), (6, 7, 1)])
def test_channel_axes_are_added_and_taken_away(
    store, tmp_path, image_shape, label_shape
):
    image = np.arange(42, dtype=np.uint8).reshape(image_shape)
    label = (np.arange(42) % 2).astype(np.uint8).reshape(label_shape)
    case = _arrays(store, tmp_path, image, label)[0]
    assert case.image.shape == (6, 7, 1)
    np.testing.assert_array_equal(case.label, (np.arange(42) % 2).reshape(6, 7))


@pytest.mark.parametrize(
    ("image_shape", "label_shape"),
    [((6, 7, 3), (6, 8)), ((6, 7, 3), (6, 7, 3)), ((6, 7, 3), (7, 6, 1))],
)
def test_label_of_another_size_is_refused(store, tmp_path, image_shape, label_shape):
    image, label = np.zeros(image_shape, np.uint8), np.zeros(label_shape, np.uint8)
    with pytest.raises(InputError, match="equal in H and W; check image_key"):
        _arrays(store, tmp_path, image, label)[0]


def test_image_with_a_mark_of_missing_values_is_refused(store, tmp_path):
    image = np.zeros((6, 7, 1), np.float32)
    image[2, 3] = -3.4e38
    source = _arrays(store, tmp_path, image, np.zeros((6, 7), np.uint8))
    with pytest.raises(InputError, match=r"'train-0-0': 1 of 42 values are -3.4e\+38"):
        source[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_image_with_nan_is_refused(store, tmp_path, bad):
    image = np.zeros((6, 7, 1), np.float32)
    image[2, 3] = bad
    source = _arrays(store, tmp_path, image, np.zeros((6, 7), np.uint8))
    with pytest.raises(
        InputError,
        match=r"'arrays', split 'train', example 'train-0-0': 1 of 42 values are NaN "
        r"or infinite; expected finite",
    ):
        source[0]


def test_label_value_outside_the_classes_is_refused(pets_dir):
    source = _pets(pets_dir, label_map=None)
    with pytest.raises(
        InputError,
        match=r"data set 'oxford_iiit_pet', split 'train', example 'train-0-0': the "
        r"label has the values 1, 2, 3, expected 0, 1, 2; .* --config.data.label_map='"
        r"\(\(1, 0\), \(2, 1\), \(3, 2\)\)'$",
    ):
        source[0]


def test_float_label_is_refused(store, tmp_path):
    image, label = np.zeros((6, 7, 1), np.uint8), np.zeros((6, 7), np.float32)
    with pytest.raises(InputError, match="label is float32, expected integers"):
        _arrays(store, tmp_path, image, label)[0]


# Pictures in other encodings.


def _one_picture(store, tmp_path, image, label, image_feature=None, **options):
    features = {
        "image": image_feature or tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.Image(shape=(None, None, 1)),
    }
    rows = [("a", {"image": image, "label": label})]
    store(tmp_path, name="one", features=features, splits={"train": rows})
    return TfdsSource(
        name="one", split="train", data_dir=tmp_path, num_classes=3, **options
    )


def test_palette_label_gives_indices_and_palette_image_gives_colours(store, tmp_path):
    indices = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    picture = Image.fromarray(indices).copy()
    palette = picture.convert("P")
    palette.putdata(indices.ravel().tolist())
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    case = _one_picture(store, tmp_path, palette, palette)[0]
    np.testing.assert_array_equal(case.label, indices)
    np.testing.assert_array_equal(case.image[0, 1], [255, 0, 0])
    np.testing.assert_array_equal(case.image[1, 0], [0, 0, 255])


def test_sixteen_bits_keep_their_depth(store, tmp_path):
    values = np.array([[0, 300, 65535]], np.uint16)
    feature = tfds.features.Image(shape=(None, None, 1), dtype=np.uint16)
    label = Image.fromarray(np.zeros((1, 3), np.uint8))
    case = _one_picture(store, tmp_path, Image.fromarray(values), label, feature)[0]
    assert case.image.dtype == np.uint16
    np.testing.assert_array_equal(case.image[..., 0], values)


def test_sixteen_bit_colour_is_refused_rather_than_cut_to_eight(store, tmp_path):
    feature = tfds.features.Image(shape=(None, None, 3), dtype=np.uint16)
    picture = Image.fromarray(np.zeros((1, 3, 3), np.uint8))
    label = Image.fromarray(np.zeros((1, 3), np.uint8))
    source = _one_picture(store, tmp_path, picture, label, feature)
    with pytest.raises(InputError, match="'image': 3 channels of uint16 are stored"):
        source[0]


def test_a_picture_cut_short_is_refused(store, tmp_path):
    whole = _jpeg(Image.fromarray(np.zeros((40, 40, 3), np.uint8)))
    label = Image.fromarray(np.zeros((40, 40), np.uint8))
    source = _one_picture(store, tmp_path, io.BytesIO(whole[: len(whole) // 2]), label)
    with pytest.raises(
        InputError, match=r"example 'train-0-0', 'image': the picture cannot be decoded"
    ):
        source[0]


# Slices that make volumes.


def _slice(volume, index, *, axis=None, spacing=(1.0, 2.0, 3.0), shape=(4, 5)):
    row = {
        "image": np.full((*shape, 1), 10 * index, np.uint8),
        "label": np.full(shape, index % 2, np.uint8),
        "scan": volume,
        "place": index,
        "mm": np.array(spacing, np.float32),
        "patient": f"patient of {volume}",
    }
    if axis is not None:
        row["slice_axis"] = axis
    return f"{volume}-{index}", row


def test_a_slab_carries_the_intensities_of_its_scan(store, tmp_path):
    rows = [_slice("a", index) for index in range(3)]
    for _, row in rows:
        row |= {"mean": 7.0, "std": 2.5}
    keys = {"mean_key": "mean", "std_key": "std"}
    (case,) = _stacked(store, tmp_path / "good", rows, **keys)
    assert case.reference == ((7.0, 2.5),)
    (case,) = _stacked(store, tmp_path / "plain", rows)
    assert case.reference is None
    with pytest.raises(InputError, match="expected both or neither"):
        _stacked(store, tmp_path / "half", rows, mean_key="mean")
    for _, row in rows:
        row["std"] = 0.0
    with pytest.raises(InputError, match=r"stds \[0.0\], expected one finite"):
        _stacked(store, tmp_path / "flat", rows, **keys)


def _stacked(store, tmp_path, rows, split="train", **options):
    array, encoding = tfds.features.Tensor, tfds.features.Encoding.BYTES
    features = {
        "image": array(shape=(None, None, 1), dtype=np.uint8, encoding=encoding),
        "label": array(shape=(None, None), dtype=np.uint8, encoding=encoding),
        "scan": tfds.features.Text(),
        "place": tfds.features.Scalar(np.int64),
        "mm": array(shape=(None,), dtype=np.float32),
        "patient": tfds.features.Text(),
    }
    for name in {"mean", "std"} & rows[0][1].keys():
        features[name] = tfds.features.Scalar(np.float32)
    if "slice_axis" in rows[0][1]:
        features["slice_axis"] = tfds.features.Scalar(np.int64)
    store(tmp_path, name="scans", features=features, splits={"train": rows})
    keys = {"volume_key": "scan", "slice_index_key": "place", "spacing_key": "mm"}
    return TfdsSource(
        name="scans",
        split=split,
        data_dir=tmp_path,
        num_classes=2,
        **(keys | options),
    )


@pytest.mark.parametrize(("axis", "place"), [(None, 2), (0, 0), (1, 1), (2, 2)])
def test_slices_are_stacked_in_order_whatever_order_they_lie_in(
    store, tmp_path, axis, place
):
    rows = [_slice(name, i, axis=axis) for i in range(3, 9) for name in ("b", "a")]
    source = _stacked(store, tmp_path, rows, group_key="patient")
    first, second = source[0], source[1]
    assert (first.id, second.id) == ("a:3-8", "b:3-8")
    assert first.group == "patient of a"
    assert first.spacing == (1.0, 2.0, 3.0)
    shape = [4, 5]
    shape.insert(place, 6)
    assert first.label.shape == tuple(shape)
    assert first.image.shape == (*shape, 1)
    along = np.moveaxis(first.image[..., 0], place, 0)
    np.testing.assert_array_equal(along[:, 0, 0], [30, 40, 50, 60, 70, 80])
    np.testing.assert_array_equal(
        np.moveaxis(first.label, place, 0)[:, 0, 0], [1, 0] * 3
    )


def test_a_gap_begins_a_new_case_of_the_same_group(store, tmp_path):
    rows = [_slice("a", index) for index in (4, 5, 6, 9, 10, 12)]
    source = _stacked(store, tmp_path, rows)
    cases = list(source)
    assert [case.id for case in cases] == ["a:4-6", "a:9-10", "a:12-12"]
    assert source.where(1).startswith("case 'a:9-10' of data set ")
    assert [case.label.shape[2] for case in cases] == [3, 2, 1]
    assert {case.group for case in cases} == {"a"}
    assert source.extent() == (1, 6)


def test_slices_as_pictures_take_their_part_of_the_spacing(store, tmp_path):
    rows = [_slice("a", index, axis=1) for index in range(3)]
    source = _stacked(store, tmp_path, rows, volume_key=None, slice_index_key=None)
    assert len(source) == 3
    assert source[0].spacing == (1.0, 3.0)


def test_listing_volumes_decodes_no_image(store, tmp_path):
    """Images that cannot be decoded are noticed when they are asked for."""
    features = {
        "image": tfds.features.Image(shape=(None, None, 1)),
        "label": tfds.features.Image(shape=(None, None, 1)),
        "volume": tfds.features.Text(),
        "index": tfds.features.Scalar(np.int64),
    }
    row = {"image": io.BytesIO(b"no picture"), "label": io.BytesIO(b"none")}
    rows = [(i, row | {"volume": "v", "index": i}) for i in range(2)]
    store(tmp_path, name="broken", features=features, splits={"train": rows})
    source = TfdsSource(
        name="broken",
        split="train",
        data_dir=tmp_path,
        num_classes=2,
        volume_key="volume",
        slice_index_key="index",
    )
    assert len(source) == 1
    with pytest.raises(InputError, match="the picture cannot be decoded"):
        source[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [_slice("a", 1), ("x", _slice("a", 1)[1])],
            "volume 'a': two slices have the index 1, expected one",
        ),
        (
            [_slice("a", 1), _slice("a", 2, spacing=(1.0, 1.0, 1.0))],
            "volume 'a': slice .* expected the same; check volume_key",
        ),
        (
            [_slice("a", 1, spacing=(1.0, 2.0))],
            r"example 'a:1': spacing \[1.0, 2.0\], expected 3 positive values in mm",
        ),
        (
            [_slice("a", 1, spacing=(1.0, 0.0, 2.0))],
            r"spacing \[1.0, 0.0, 2.0\], expected 3 positive values in mm",
        ),
    ],
)
def test_slices_that_make_no_volume(store, tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        _stacked(store, tmp_path, rows)


def test_slices_of_two_sizes_are_refused(store, tmp_path):
    source = _stacked(store, tmp_path, [_slice("a", 1), _slice("a", 2, shape=(4, 6))])
    with pytest.raises(
        InputError, match=r"its slices have shapes \[\(4, 5, 1\), \(4, 6, 1\)\]"
    ):
        source[0]


# What cannot be opened.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"label_key": "segmentation"},
            "there is no feature 'segmentation'; set label_key to one of file_name, ",
        ),
        ({"image_key": "img"}, "no feature 'img'; set image_key to one of"),
        ({"volume_key": "species"}, "slice_index_key is not set, but volume_key is"),
        (
            {"volume_key": "species", "slice_index_key": "n"},
            "no feature 'n'; set slice_index_key to one of",
        ),
        ({"split": "validation"}, r"expected one of train \(5\), test \(2\), or a"),
        ({"split": "train[:0%]"}, "it has no records"),
        ({"split": "train["}, "cannot be used"),
        ({"split": "train[:9]"}, "cannot be used"),
        ({"label_map": ((1, 3),)}, "lead to no class, expected classes 0 to 2"),
    ],
)
def test_keys_and_splits_that_do_not_exist(pets_dir, options, message):
    with pytest.raises(InputError, match=message) as error:
        _pets(pets_dir, **options)
    assert "\n" not in str(error.value)
