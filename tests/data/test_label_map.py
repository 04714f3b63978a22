import numpy as np
import pytest

from unet_jax.data.label_map import LabelMap
from unet_jax.errors import InputError


def test_without_pairs_stored_values_are_the_classes():
    stored = np.array([[0, 1], [2, 1]], np.uint8)
    label = LabelMap(None, num_classes=3)(stored, where="x")
    assert label.dtype == np.int16
    np.testing.assert_array_equal(label, stored)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64, np.uint64])
def test_pairs_and_ignore_for_any_integer(dtype):
    stored = np.array([[1, 2, 3], [3, 2, 100]], dtype)
    label_map = LabelMap(((1, 1), (2, 0), (3, 2), (100, -1)), num_classes=3)
    np.testing.assert_array_equal(label_map(stored, where="x"), [[1, 0, 2], [2, 0, -1]])


def test_negative_stored_values_and_bool():
    label = LabelMap(((-7, 1), (0, 0)), num_classes=2)(np.array([-7, 0]), where="x")
    np.testing.assert_array_equal(label, [1, 0])
    label = LabelMap(None, num_classes=2)(np.array([True, False]), where="x")
    np.testing.assert_array_equal(label, [1, 0])


def test_unmapped_values_name_found_expected_and_a_map_to_paste():
    stored = np.array([0, 1, 255], np.uint8)
    with pytest.raises(InputError) as error:
        LabelMap(None, num_classes=2)(stored, where="set s, example e")
    assert str(error.value) == (
        "set s, example e: the label has the values 0, 1, 255, expected 0, 1; give "
        "every stored value its class (-1 to ignore it), such as "
        "--config.data.label_map='((0, 0), (1, 1), (255, -1))'"
    )


def test_values_without_a_name_are_not_proposed_to_be_ignored():
    message = r"the values 0, 1, 2, but data.class_names has 2 names; expected a name"
    with pytest.raises(InputError, match=message) as error:
        LabelMap(None, num_classes=2)(np.array([0, 1, 2]), where="x")
    assert "that of the background too" in str(error.value)


def test_shifted_values_are_proposed_in_order():
    with pytest.raises(InputError, match=r"values 1, 2, 3, expected 0, 1, 2;") as error:
        LabelMap(None, num_classes=3)(np.array([3, 1, 2]), where="x")
    assert str(error.value).endswith("label_map='((1, 0), (2, 1), (3, 2))'")


def test_a_given_map_is_extended():
    with pytest.raises(InputError, match=r"values 1, 4, expected 1, 3;") as error:
        LabelMap(((1, 0), (3, 1)), num_classes=2)(np.array([1, 4]), where="x")
    extended = "--config.data.label_map='((1, 0), (3, 1), (4, -1))'"
    assert str(error.value).endswith(f"to ignore 4, set {extended}")


@pytest.mark.parametrize("stored", [-1, 2, 3, 9])
def test_values_below_between_and_above_are_all_refused(stored):
    label_map = LabelMap(((1, 0), (4, 1)), num_classes=2)
    with pytest.raises(InputError, match=f"has the values {stored},"):
        label_map(np.array([stored]), where="x")


def test_many_values_are_cut_short():
    with pytest.raises(InputError, match=r"11, \.\.\., 199 \(200 values\)") as error:
        LabelMap(((0, 0), (1, 1)), num_classes=2)(np.arange(200), where="x")
    assert "\n" not in str(error.value)


def test_float_labels_are_refused():
    with pytest.raises(InputError, match="label is float32, expected integers"):
        LabelMap(None, num_classes=2)(np.zeros(3, np.float32), where="x")


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (((1, 0), (1, 1)), r"\(\(1, 0\), \(1, 1\)\) has a value twice"),
        (((1, 0), (2, 2)), r"\(\(2, 2\),\) lead to no class, expected classes 0 to 1"),
        (((1, -2),), "lead to no class"),
        ((), "has no value"),
    ],
)
def test_maps_that_do_not_fit(pairs, message):
    with pytest.raises(InputError, match=message):
        LabelMap(pairs, num_classes=2)
