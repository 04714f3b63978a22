"""SegResNet beyond its golden numbers: sizes, dropout, options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.models import segresnet

_Small = functools.partial(
    segresnet.SegResNet, 3, features=8, encoder_blocks=(1, 2), decoder_blocks=(1,)
)


def _image(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("spatial", [(13, 10), (5, 4, 7)])
def test_any_size_is_padded_with_its_last_pixels_and_cropped_back(
    spatial, formula_params, apply
):
    x = _image(1, *spatial, 2)
    params = formula_params(_Small(), x)
    logits = apply(_Small(), params, x)
    assert logits.shape == (1, *spatial, 3)
    pads = [(0, size % 2) for size in spatial]
    whole = jnp.pad(x, ((0, 0), *pads, (0, 0)), mode="edge")
    padded = apply(_Small(), params, whole)
    np.testing.assert_allclose(logits, padded[:, *map(slice, spatial)], atol=1e-5)


def test_dropout_draws_by_the_keys_in_training_alone(formula_params, apply):
    x = _image(2, 8, 8, 1)
    params = formula_params(_Small(), x)
    keys = jax.random.split(jax.random.key(0), 2)
    network = _Small(dropout=0.5)
    plain = apply(_Small(), params, x, train=True)
    np.testing.assert_allclose(apply(network, params, x), plain, atol=1e-5)
    dropped = apply(network, params, x, train=True, keys=keys)
    assert np.abs(dropped - plain).max() > 1e-2
    other = apply(network, params, x, train=True, keys=keys[::-1])
    assert np.abs(dropped - other).max() > 1e-2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 12}, "features is 12; expected a multiple of 8"),
        ({"decoder_blocks": (1, 1)}, "decoder_blocks has 2 entries; expected 1"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(_Small(**options).init, jax.random.key(0), _image(1, 8, 8, 1))
