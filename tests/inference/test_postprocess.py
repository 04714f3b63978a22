import numpy as np
import pytest

from unet_jax.inference.postprocess import (
    apply_steps,
    choose_steps,
    fill_holes,
    fill_planes,
    keep_largest,
    remove_small,
)
from unet_jax.labels import IGNORE


def _picture():
    """Class 1: a ring of 16 pixels and a dot; class 2: one pixel in the ring's hole."""
    labels = np.zeros((9, 9), np.uint8)
    labels[1:6, 1:6] = 1
    labels[2:5, 2:5] = 0
    labels[3, 3] = 2
    labels[8, 8] = 1
    return labels


def test_the_largest_component_stays():
    labels = _picture()
    expected = labels.copy()
    expected[8, 8] = 0
    np.testing.assert_array_equal(keep_largest(labels, classes=(1,)), expected)
    np.testing.assert_array_equal(keep_largest(labels, classes=(2,)), labels)
    np.testing.assert_array_equal(keep_largest(labels, classes=(3,)), labels)


def _head():
    """A brain of two classes with a thin gyrus, a muscle on a bridge, and fluid."""
    labels = np.zeros((40, 40), np.uint8)
    labels[14:32, 10:30] = 2
    labels[18:28, 14:26] = 3
    labels[20, 30:34] = 2
    labels[1:6, 15:25] = 2
    labels[6:14, 20] = 2
    labels[32, 10:30] = 1
    return labels


def test_a_body_of_several_classes_loses_what_thin_bridges_tie_to_it():
    labels = _head()
    found = keep_largest(labels, classes=(2, 3), radius=2.0)
    # A bridge is cut in its middle; what is thin and reached by no other body stays.
    expected = np.where(np.arange(40)[:, None] < 10, 0, labels)
    np.testing.assert_array_equal(found, expected)
    # A thousandth of the body is none: it stays where it is tied to it and near.
    large = np.kron(labels, np.ones((12, 12), np.uint8))
    large[240, 119], large[238:243, 114:119] = 2, 2
    kept = keep_largest(large, classes=(2, 3), radius=2.0)
    assert (kept[240, 116], kept[240, 114]) == (2, 0)
    # A half is none either, though what ties them is thin.
    halves = np.zeros((12, 30), np.uint8)
    halves[:, :12], halves[5, 12:18], halves[:, 18:] = 2, 3, 2
    same = keep_largest(halves, classes=(2, 3), radius=2.0)
    np.testing.assert_array_equal(same, halves)
    # By faces, all of it is one component.
    whole = keep_largest(labels, classes=(2, 3), radius=0.0)
    np.testing.assert_array_equal(whole, labels)
    # Classes that are thinner than the box, or absent, stay.
    for classes in ((1,), (5,)):
        same = keep_largest(labels, classes=classes, radius=2.0)
        np.testing.assert_array_equal(same, labels)


def test_the_radius_of_a_body_is_in_millimetres():
    volume = np.repeat(_head()[None], 3, axis=0)
    thick = keep_largest(volume, classes=(2, 3), radius=2.0, spacing=(5.0, 1.0, 1.0))
    flat = keep_largest(_head(), classes=(2, 3), radius=2.0)
    np.testing.assert_array_equal(thick, np.repeat(flat[None], 3, axis=0))
    steps = (("largest_component", (2, 3), 2.0),)
    np.testing.assert_array_equal(
        apply_steps(volume, steps, spacing=(5.0, 1.0, 1.0)), thick
    )
    # Of pixels of 0.1 mm, no body is as wide as the box.
    fine = apply_steps(volume, steps, spacing=(5.0, 0.1, 0.1))
    np.testing.assert_array_equal(fine, volume)
    with pytest.raises(ValueError, match=r"fill_holes has one class, not \(1, 2\)"):
        apply_steps(volume, (("fill_holes", (1, 2), None),))


@pytest.mark.parametrize(("size", "left"), [(1, 17), (2, 16), (16, 16), (17, 0)])
def test_small_components_go(size, left):
    found = remove_small(_picture(), index=1, min_size=size)
    assert (found == 1).sum() == left
    assert (found == 2).sum() == 1


def test_holes_are_filled_but_other_classes_stay():
    found = fill_holes(_picture(), index=1)
    assert (found == 1).sum() == 17 + 8
    assert found[3, 3] == 2


def test_planes_are_filled_where_classes_enclose_background_together():
    ring = np.zeros((9, 9), np.uint8)
    ring[1:6, 1:6] = 2
    ring[2:5, 2:5] = 0
    ring[1, 1:6] = 3  # neither class is closed alone
    expected = ring.copy()
    expected[2:5, 2:5] = 1
    np.testing.assert_array_equal(fill_planes(ring, classes=(1, 2, 3)), expected)
    np.testing.assert_array_equal(fill_planes(ring, classes=(1, 2)), ring)
    # A hole that leaves a volume at both ends is enclosed in slices, across any axis.
    for axis in range(3):
        tube, full = (np.stack([one] * 5, axis=axis) for one in (ring, expected))
        np.testing.assert_array_equal(fill_planes(tube, classes=(1, 2, 3)), full)
        found = apply_steps(tube, (("fill_planes", (1, 2, 3), None),))
        np.testing.assert_array_equal(found, full)


def test_components_touch_by_their_sides_in_volumes_too():
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 0] = labels[1, 2, 0] = 1
    found = keep_largest(labels, classes=(1,))
    assert found.sum() == 2
    assert found[0, 0, 0] == 0


def test_steps_follow_each_other_and_keep_the_dtype():
    steps = (("largest_component", 1, None), ("fill_holes", 1, None))
    found = apply_steps(_picture(), steps)
    assert found.dtype == np.uint8
    assert (found == 1).sum() == 24
    np.testing.assert_array_equal(apply_steps(_picture(), ()), _picture())
    with pytest.raises(ValueError, match="Unknown step 'smooth'; expected one of"):
        apply_steps(_picture(), (("smooth", 1, None),))


def _pairs(predictions, labels):
    return list(zip(predictions, labels, strict=True))


def test_a_step_is_kept_only_if_validation_gains():
    truth = _picture()
    truth[8, 8] = 0  # the dot is a false positive
    chosen = choose_steps(
        _pairs([_picture()] * 2, [truth] * 2),
        groups=(
            (1,),
            (2,),
        ),
    )
    assert chosen == (("largest_component", 1, None),)
    # Where the dots are true and the hole is one, nothing may be done.
    assert (
        choose_steps(
            _pairs([_picture()], [_picture()]),
            groups=(
                (1,),
                (2,),
            ),
        )
        == ()
    )


def test_the_smallest_size_that_helps_most_is_found_greedily():
    rng = np.random.default_rng(0)
    truth = np.zeros((40, 40), np.uint8)
    truth[3:12, 3:12] = truth[22:30, 25:33] = 1
    prediction = truth.copy()
    noise = rng.random(truth.shape) < 0.02
    prediction[noise] = 1
    chosen = choose_steps(_pairs([prediction], [truth]), groups=((1,),))
    assert ("min_size", 1, 8) in chosen
    # Two true components: keeping the largest alone would lose one.
    assert all(name != "largest_component" for name, _, _ in chosen)


def test_ignored_pixels_and_absent_classes_decide_nothing():
    prediction = _picture()
    label = _picture().astype(np.int16)
    label[8, 8] = IGNORE
    assert (
        choose_steps(
            _pairs([prediction], [label]),
            groups=(
                (1,),
                (2,),
                (3,),
            ),
        )
        == ()
    )


def test_steps_of_regions_are_chosen_by_the_dice_of_the_regions():
    truth = np.zeros((9, 9), np.uint8)
    truth[1:5, 1:5], truth[2:4, 2:4] = 1, 2
    prediction = truth.copy()
    prediction[7, 6:8], prediction[8, 8] = (1, 2), 2  # far away, of both regions
    chosen = choose_steps(_pairs([prediction], [truth]), groups=((1, 2), (2,)))
    assert chosen == (("largest_component", (1, 2), None),)
    np.testing.assert_array_equal(apply_steps(prediction, chosen), truth)
