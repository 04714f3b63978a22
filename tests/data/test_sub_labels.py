import numpy as np
import pytest

from unet_jax.data.sub_labels import SubLabels
from unet_jax.errors import InputError


def test_given_numbers_count_and_other_values_are_the_largest_part():
    numbers = SubLabels(((7, -1), ((10, 13), 1), (507, 4)))
    found = numbers(np.array([[0, 7, 8], [10, 13, 507]]))
    np.testing.assert_array_equal(found, [[0, -1, 0], [1, 1, 4]])
    assert found.dtype == np.float32


def test_without_numbers_the_values_of_a_class_are_numbered_in_turn():
    label_map = ((5, 2), (0, 0), (1, 1), (2, 2), (3, 2), (4, 2), (9, -1), (12, 12))
    numbers = SubLabels((), label_map=label_map)
    found = numbers(np.array([0, 1, 2, 3, 4, 5, 9, 12]))
    np.testing.assert_array_equal(found, [0, 0, 0, 1, -1, 0, 0, 0])


def test_only_the_first_value_of_the_background_is_air():
    around = tuple(((100 * k, 100 * k + 9), 0) for k in range(1, 11))
    numbers = SubLabels((), label_map=((0, 0), *around))
    found = numbers(np.arange(0, 1001, 100))
    np.testing.assert_array_equal(found, [0, 1, -1, 2, -2, 3, -3, 4, -4, 1, -1])


@pytest.mark.parametrize(
    "entry", [(7, 5), (7, 0.5), 7, ((9, 3), 1), ("cortex", 1), ((1, 2, 3), 1)]
)
def test_other_entries_are_refused(entry):
    with pytest.raises(InputError, match=r"data\.sub_labels: found .*numbers from -4"):
        SubLabels((entry,))
