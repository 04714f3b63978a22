import numpy as np
import pytest

from unet_jax.data.regions import regions_from
from unet_jax.errors import InputError

BRATS = (("whole", (1, 2, 3), 1), ("core", (2, 3), 2), ("enhancing", (3,), 3))
NAMES = ("background", "edema", "necrosis", "enhancing")


def test_regions_are_written_in_their_order_where_they_are_above_one_half():
    """As nnU-Net does it: ``seg[p[i] > 0.5] = regions_class_order[i]``."""
    regions = regions_from(BRATS, class_names=NAMES)
    rng = np.random.default_rng(0)
    probabilities = rng.random((5, 6, 4))
    probabilities[0, 0] = 0.5
    expected = np.zeros((5, 6), int)
    for index, written in enumerate((1, 2, 3)):
        expected[probabilities[..., 1 + index] > 0.5] = written
    np.testing.assert_array_equal(regions.written(probabilities), expected)


def test_the_labels_of_sure_regions_are_the_labels_they_were_made_of():
    regions = regions_from(BRATS, class_names=NAMES)
    labels = np.random.default_rng(1).integers(0, 4, (7, 8))
    inside = regions.members(4)[labels]
    np.testing.assert_array_equal(regions.written(inside), labels)


@pytest.mark.parametrize(
    "given",
    [
        (("core", (2,)),),
        "core",
        (("core", (2, 4), 2),),
        (("core", (0, 2), 2),),
        (("core", (2,), 3),),
        (("core", (2,), 2), ("core", (3,), 3)),
    ],
)
def test_what_are_no_regions_is_one_line(given):
    with pytest.raises(InputError, match=r"data.regions: found .*classes from 1 to 3"):
        regions_from(given, class_names=NAMES)
