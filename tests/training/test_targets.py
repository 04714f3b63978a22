import jax
import numpy as np
import pytest

from unet_jax.data.label_grids import resample_labels
from unet_jax.labels import IGNORE
from unet_jax.training.targets import targets_of


def test_a_smaller_output_sees_the_centre():
    labels = np.arange(2 * 9 * 10).reshape(2, 9, 10)
    (centre,) = targets_of(labels, [(5, 4)], num_classes=2)
    np.testing.assert_array_equal(centre, labels[:, 2:7, 3:7])


@pytest.mark.parametrize("size", [(8, 12), (4, 8, 4)])
def test_coarser_outputs_have_the_labels_of_the_preprocessing(size):
    labels = np.random.default_rng(0).integers(IGNORE, 3, (2, *size)).astype(np.int32)
    sizes = [tuple(n // step for n in size) for step in (1, 2, 4)]
    whole, *coarser = jax.jit(lambda x: targets_of(x, sizes, num_classes=3))(labels)
    np.testing.assert_array_equal(whole, labels)
    for found, coarse in zip(coarser, sizes[1:], strict=True):
        for one, label in zip(found, labels, strict=True):
            np.testing.assert_array_equal(one, resample_labels(label, coarse))
        assert found.dtype == labels.dtype


@pytest.mark.parametrize(
    ("line", "size", "expected"),
    [
        # Strides of 2 see the pixels (0, 1), (2, 3) and (4,).
        ([1, 1, 0, 0, 2], 3, [1, 0, 2]),
        # No stride makes 4 pixels of 9: they are equal parts of the image.
        ([1, 1, 0, 0, 0, 2, 2, 1, 1], 4, [1, 0, 2, 1]),
    ],
)
def test_the_pixels_of_an_odd_size_are_those_of_the_network(line, size, expected):
    labels = np.tile(line, (1, len(line), 1))
    sizes = [labels.shape[1:], (size, size)]
    _, coarse = targets_of(labels, sizes, num_classes=3)
    np.testing.assert_array_equal(coarse[0], [expected] * size)
