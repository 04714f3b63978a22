"""A method passes its function only the keywords that the function takes."""

import numpy as np
import pytest

from unet_jax.method import Method

IMAGE, REFERENCE = np.zeros((2, 3, 1)), ((5.0, 2.0),)
FILLED = np.zeros((2, 3, 2))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, {}),
        ({"wants_reference": True}, {"reference": REFERENCE}),
        ({"gives_probabilities": True}, {"probabilities": FILLED}),
        (
            {"wants_reference": True, "gives_probabilities": True},
            {"reference": REFERENCE, "probabilities": FILLED},
        ),
    ],
)
def test_the_flags_decide_which_keywords_are_passed(flags, expected):
    calls = []

    def record(*arguments, **options):
        calls.append((arguments, options))
        return [[1, 0, 0], [0, 0, 1]]

    labels = Method(record, **flags)(
        IMAGE, (1.0, 2.0), reference=REFERENCE, probabilities=FILLED
    )
    (((image, spacing), options),) = calls
    assert image is IMAGE
    assert spacing == (1.0, 2.0)
    assert options.keys() == expected.keys()
    assert all(options[key] is value for key, value in expected.items())
    np.testing.assert_array_equal(labels, [[1, 0, 0], [0, 0, 1]])


def test_a_method_is_called_like_a_plain_function():
    method = Method(
        lambda image, spacing, *, reference: image[..., 0] > 0, wants_reference=True
    )
    assert not method(IMAGE, None).any()
