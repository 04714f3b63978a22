import numpy as np
import pytest

from unet_jax.data.adjacent_slices import AdjacentSlices, with_neighbours
from unet_jax.data.case import Case
from unet_jax.data.pipeline import make_train_iterator
from unet_jax.data.prepared import PreparedCases


def _neighbours_of_all(volume, axis, count):
    """Say it slice by slice: which slices a slice has, the borders repeated."""
    slices = np.moveaxis(volume, axis, 0)
    found = [
        np.concatenate(
            [
                slices[min(max(z + offset, 0), len(slices) - 1)]
                for offset in range(-count, count + 1)
            ],
            axis=-1,
        )
        for z in range(len(slices))
    ]
    return np.moveaxis(np.stack(found), 0, axis)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("count", [0, 1, 2, 6])
def test_neighbours_are_channels_and_borders_repeat(axis, count):
    volume = np.random.default_rng(0).normal(size=(4, 5, 3, 2)).astype(np.float32)
    expected = _neighbours_of_all(volume, axis, count)
    view = AdjacentSlices(volume, axis, count)
    assert view.shape == expected.shape
    np.testing.assert_array_equal(np.asarray(view), expected)
    region = (slice(1, 3), slice(2, 5), slice(2, 3))
    found = with_neighbours(volume, region, axis=axis, count=count)
    np.testing.assert_array_equal(found, expected[region])
    assert found.dtype == np.float32


class _Volumes:
    """Volumes of other depths, in which every number is there once."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        image = np.arange(4.0 * 6 * (3 + index)).reshape(-1, 6, 4, 1) + 1000 * index
        label = (image[..., 0] % 2).astype(np.int16)
        return Case(str(index), image.astype(np.float32), label, None, "p")


def test_training_crops_have_the_neighbours_of_their_slice():
    prepared = PreparedCases(
        _Volumes(),
        lambda case: (case.image, case.label),
        num_classes=2,
        spatial_dims=2,
        by_slice=True,
        adjacent_slices=1,
        cache_bytes=10**6,
        seed=0,
    )
    assert len(prepared) == 7
    whole = [_neighbours_of_all(_Volumes()[index].image, 0, 1) for index in (0, 1)]
    batches = make_train_iterator(
        prepared,
        seed=0,
        global_batch_size=7,
        patch_size=(4, 5),
        foreground_oversampling=0.5,
        num_threads=0,
    )
    batch = next(batches)
    batches.close()
    assert batch["image"].shape == (7, 4, 5, 3)
    seen = set()
    for image, label in zip(batch["image"], batch["label"], strict=True):
        # The plane has one column less than the patch, which is 0 there, and ignored.
        inside = label[0] >= 0
        assert np.all(image[:, ~inside] == 0)
        image, label = image[:, inside], label[:, inside]
        np.testing.assert_array_equal(label, image[..., 1] % 2)
        case, first = divmod(int(image[0, 0, 1]), 1000)
        place = np.unravel_index(first, (3 + case, 6, 4))
        expected = whole[case][place[0], place[1] : place[1] + 4]
        np.testing.assert_array_equal(image, expected)
        seen.add((case, int(place[0])))
    assert len(seen) > 3
