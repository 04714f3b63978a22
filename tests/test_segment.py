import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import InputError
from unet_jax.segment import make_forward, make_predict_fn, stack_axis


class _Sign(nn.Module):
    """Class 1 where the normalised value is above zero."""

    @nn.compact
    def __call__(self, x, *, train=False):
        scale = self.param("scale", nn.initializers.ones, (1,))
        return jnp.concatenate([-scale * x, scale * x], axis=-1)


def _preprocessing(dims, **changes):
    values = {
        "network_dims": dims,
        "slice_axis": 2,
        "spacing": None,
        "size": None,
        "crop_nonzero": True,
        "intensity": "zscore",
        "channels": 1,
    }
    return Preprocessing(**{**values, **changes})


def _predict_fn(preprocessing, patch):
    model = _Sign()
    variables = {"params": {"scale": jnp.ones(1)}}
    return make_predict_fn(
        make_forward(model),
        variables,
        preprocessing,
        num_classes=2,
        patch_size=patch,
        overlap=0.5,
        window_batch=4,
    )


@pytest.mark.parametrize(
    ("dims", "shape"), [(2, (9, 14)), (2, (9, 14, 5)), (3, (9, 14, 5))]
)
def test_labels_come_back_on_the_grid_of_the_image(dims, shape):
    rng = np.random.default_rng(0)
    image = rng.integers(1, 255, (*shape, 1)).astype(np.uint8)
    image[:2] = 0
    labels = _predict_fn(_preprocessing(dims), (6,) * dims)(image, None)
    inside = image[image > 0].astype(np.float64)
    assert labels.shape == shape
    np.testing.assert_array_equal(labels, image[..., 0] > inside.mean())


def test_slices_are_taken_along_the_axis_of_training():
    # A volume that is constant in each coronal slice: no other axis sees it so.
    seen = []

    class Spy(nn.Module):
        @nn.compact
        def __call__(self, x, *, train=False):
            seen.append(x.shape)
            self.param("scale", nn.initializers.ones, (1,))
            return jnp.concatenate([-x, x], axis=-1)

    image = np.arange(1, 8 * 6 * 4 + 1).reshape(8, 6, 4, 1)
    preprocessing = _preprocessing(2, slice_axis=1)
    predict_fn = make_predict_fn(
        make_forward(Spy()),
        {"params": {"scale": jnp.ones(1)}},
        preprocessing,
        num_classes=2,
        patch_size=(8, 4),
        overlap=0.5,
        window_batch=3,
    )
    labels = predict_fn(image, None)
    assert seen == [(3, 8, 4, 1)]
    np.testing.assert_array_equal(labels, image[..., 0] > image.mean())


def test_a_network_refuses_images_of_other_dimensions():
    assert stack_axis(_preprocessing(2), 2) is None
    assert stack_axis(_preprocessing(2), 3) == 2
    assert stack_axis(_preprocessing(3), 3) is None
    with pytest.raises(InputError, match="found an image with 2 spatial axes"):
        stack_axis(_preprocessing(3), 2)


def test_messages_name_the_image():
    predict_fn = _predict_fn(_preprocessing(2), (6, 6))
    with pytest.raises(InputError, match=r"^scan.png: 3 channels; expected 1"):
        predict_fn(np.ones((8, 8, 3), np.uint8), None, name="scan.png")
