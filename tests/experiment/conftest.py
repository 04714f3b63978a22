"""A network that is far too sure of itself, and cases that deceive it."""

import flax.linen as nn
import jax.numpy as jnp
import pytest

from unet_jax.data.preprocess import Preprocessing
from unet_jax.inference.forward import make_forward
from unet_jax.inference.segmenter import make_predict_fn


class _Bright(nn.Module):
    """Logits that are far too large for what the image says."""

    @nn.compact
    def __call__(self, x, *, train=False):
        return jnp.concatenate([-9 * x, 9 * x], axis=-1)


@pytest.fixture(scope="module")
def segmenter():
    preprocessing = Preprocessing(
        network_dims=2,
        slice_axis=2,
        spacing=None,
        size=None,
        crop_nonzero=False,
        intensity="zscore",
        channels=1,
    )
    return make_predict_fn(
        make_forward(_Bright()),
        {},
        preprocessing,
        num_classes=2,
        patch_size=(8, 8),
        overlap=0.0,
        window_batch=4,
    )
