"""Weights of a network start another one whose images or classes differ."""

import numpy as np
import pytest

from unet_jax.training.other_data import Form, fitted_to

NAMES = ("background", "liver", "tumour")


def _params(channels, classes, seed):
    random = np.random.default_rng(seed)
    return {
        "stem": {"kernel": random.normal(size=(3, 3, channels, 4))},
        "encoder_0": {"kernel": random.normal(size=(3, 3, 4, 4))},
        "head": {
            "kernel": random.normal(size=(1, 1, 4, classes)),
            "bias": random.normal(size=classes),
        },
    }


@pytest.mark.parametrize(("there", "here"), [(3, 1), (1, 3), (4, 2)])
def test_equal_channels_give_what_they_gave(there, here):
    source, own = _params(there, 3, 0), _params(here, 3, 1)
    found, lines = fitted_to(
        source, own, there_form=Form(there, NAMES), here_form=Form(here, NAMES)
    )
    kernel = found["stem"]["kernel"]
    assert kernel.shape == own["stem"]["kernel"].shape
    np.testing.assert_allclose(kernel.sum(2), source["stem"]["kernel"].sum(2))
    for name in ("encoder_0", "head"):
        assert found[name]["kernel"] is source[name]["kernel"]
    assert lines == [f"stem/kernel: {there} channels of images, {here} here"]


@pytest.mark.parametrize(
    "names", [("background", "tumour"), ("background", "a", "tumour")]
)
def test_the_head_goes_by_the_names_of_classes(names):
    source, own = _params(1, 3, 0), _params(1, len(names), 1)
    found, lines = fitted_to(
        source, own, there_form=Form(1, NAMES), here_form=Form(1, names)
    )
    for key in ("kernel", "bias"):
        for index, name in enumerate(names):
            if name in NAMES:
                expected = source["head"][key][..., NAMES.index(name)]
            else:
                expected = own["head"][key][..., index]
            np.testing.assert_array_equal(found["head"][key][..., index], expected)
    assert lines[0] == "head/bias: by name, background, tumour"


def test_the_same_form_changes_nothing():
    source = _params(2, 3, 0)
    form = Form(2, NAMES)
    found, lines = fitted_to(source, _params(2, 3, 1), there_form=form, here_form=form)
    assert not lines
    assert found["stem"]["kernel"] is source["stem"]["kernel"]


def test_what_differs_otherwise_is_left_to_be_skipped():
    source, own = _params(2, 3, 0), _params(1, 2, 1)
    own["stem"]["kernel"] = np.zeros((5, 5, 1, 4))
    own["head"]["kernel"] = np.zeros((1, 1, 6, 2))
    found, lines = fitted_to(
        source, own, there_form=Form(2, NAMES), here_form=Form(1, NAMES[:2])
    )
    assert [line.partition(":")[0] for line in lines] == ["head/bias"]
    assert found["stem"]["kernel"].shape == (3, 3, 2, 4)
