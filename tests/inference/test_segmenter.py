import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from unet_jax.configs import base
from unet_jax.data.grids import Inverse
from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import InputError, RunError
from unet_jax.experiment.inference import compile_network, create_predict_fn_maker
from unet_jax.experiment.network import create_network
from unet_jax.inference.forward import make_forward
from unet_jax.inference.member import stack_axis
from unet_jax.inference.segmenter import Segmenter, make_predict_fn
from unet_jax.models import presets
from unet_jax.models.unet import UNet


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


class _NextSlice(nn.Module):
    """Class 1 where the following slice is above zero."""

    @nn.compact
    def __call__(self, x, *, train=False):
        following = x[..., 2:]
        return jnp.concatenate([-following, following], axis=-1)


@pytest.mark.parametrize("shape", [(9, 14, 5), (4, 5, 17)])
@pytest.mark.parametrize("slice_axis", [0, 2])
def test_the_network_sees_the_slices_beside_a_slice(shape, slice_axis):
    # The planes of the second volume are smaller than a window.
    image = np.random.default_rng(0).normal(size=(*shape, 1))
    preprocessing = _preprocessing(2, slice_axis=slice_axis, adjacent_slices=1)
    assert preprocessing.input_channels == 3
    predict_fn = make_predict_fn(
        make_forward(_NextSlice(), mirror_axes=(0, 1)),
        {},
        preprocessing,
        num_classes=2,
        patch_size=(6, 6),
        overlap=0.5,
        window_batch=4,
    )
    labels = np.moveaxis(predict_fn(image, None), slice_axis, 0)
    above = np.moveaxis(image[..., 0] > image.mean(), slice_axis, 0)
    np.testing.assert_array_equal(labels[:-1], above[1:])
    np.testing.assert_array_equal(labels[-1], above[-1])
    with pytest.raises(InputError, match=r"p\.png: 2 spatial axes; expected 3"):
        predict_fn(image[..., 0, :], None, name="p.png")


@pytest.mark.parametrize("mirror_axes", [(), (0, 2)])
def test_windows_in_turn_get_what_windows_at_once_get(mirror_axes):
    network = UNet(num_classes=3, features=(4, 8))
    windows = np.random.default_rng(0).normal(size=(4, 8, 8, 8, 1)).astype(np.float32)
    variables = jax.jit(network.init)(jax.random.key(0), windows[:1])
    at_once = make_forward(network, mirror_axes=mirror_axes)(variables, windows)
    at_once = np.asarray(at_once)
    forward = make_forward(network, mirror_axes=mirror_axes, in_turn=True)
    every = np.asarray(forward(variables, windows))
    np.testing.assert_allclose(every, at_once, atol=1e-6)
    some = np.asarray(forward(variables, windows, 3))
    np.testing.assert_allclose(some[:3], at_once[:3], atol=1e-6)
    assert not some[3].any()


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


@pytest.mark.parametrize(
    ("dims", "shape"), [(2, (19, 14)), (2, (9, 14, 5)), (3, (9, 14, 7))]
)
def test_planes_along_any_axis_are_the_probabilities(dims, shape):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(*shape, 1)).astype(np.float32) + 3
    image[:2], image[:, -3:] = 0, 0  # cropped away, and background for sure
    spacing = (1.0, 2.0, 1.5)[: len(shape)]
    preprocessing = _preprocessing(dims, spacing=(1.3, 1.6, 1.5)[: len(shape)])
    predict_fn = _predict_fn(preprocessing, (6,) * dims)
    stacked = []
    for axis in range(len(shape)):
        planes = predict_fn.members[0].scores(image, spacing, axis=axis).planes()
        stacked.append(np.stack([plane.copy() for plane in planes], axis=axis))
        assert stacked[-1].shape == (*shape, 2)
        np.testing.assert_allclose(stacked[-1].sum(-1), 1, rtol=1e-5)
        np.testing.assert_allclose(stacked[-1], stacked[0], atol=2e-5)
    assert (stacked[0][:2, ..., 0] == 1).all()
    filled = np.zeros((*shape, 2), np.float16)
    labels = predict_fn(image, spacing, probabilities=filled)
    np.testing.assert_array_equal(labels, stacked[0].argmax(-1))
    np.testing.assert_allclose(filled, stacked[0], atol=1e-3)


def test_resampled_scores_come_back_as_interpolation_does():
    # Linear along each axis: the same as zooming each class by scipy at once.
    rng = np.random.default_rng(1)
    grid = rng.random((7, 9, 5, 3)).astype(np.float32)
    shape = (11, 6, 13)
    inverse = Inverse(shape, tuple((0, n) for n in shape), grid.shape[:-1])
    for axis in range(3):
        moved = np.moveaxis(grid, axis, 0)
        bands = ((first, moved[first : first + 2]) for first in range(0, len(moved), 2))
        planes = inverse.planes(bands, axis=axis, num_classes=3)
        found = np.stack([plane.copy() for plane in planes], axis=axis)
        for index in range(3):
            factors = np.divide(shape, grid.shape[:-1])
            expected = ndimage.zoom(
                grid[..., index], factors, order=1, mode="nearest", grid_mode=True
            )
            np.testing.assert_allclose(found[..., index], expected, atol=1e-5)


def test_mirroring_is_the_mean_of_all_ways():
    class Ramp(nn.Module):
        @nn.compact
        def __call__(self, x, *, train=False):
            place = jnp.linspace(-2, 2, x.shape[1])[None, :, None, None]
            return jnp.concatenate([x * 0, x + place], axis=-1)

    x = np.random.default_rng(0).normal(size=(2, 6, 5, 1)).astype(np.float32)
    plain = make_forward(Ramp())({}, x)
    mirrored = make_forward(Ramp(), mirror_axes=(0,))({}, x)
    turned = make_forward(Ramp())({}, x[:, ::-1])[:, ::-1]
    np.testing.assert_allclose(mirrored, (plain + turned) / 2, atol=1e-6)
    assert np.abs(mirrored - plain).max() > 0.1
    both = make_forward(Ramp(), mirror_axes=(0, 1))({}, x)
    np.testing.assert_allclose(both, mirrored, atol=1e-6)


def test_an_ensemble_is_the_mean_of_the_probabilities():
    image = np.random.default_rng(0).integers(1, 255, (12, 17, 1)).astype(np.uint8)
    spacing = (1.0, 1.0)
    members = tuple(
        _predict_fn(_preprocessing(2, spacing=(size, size, 1.0)), (6, 6))
        for size in (1.0, 1.4)
    )
    single = []
    for member in members:
        filled = np.zeros((12, 17, 2), np.float32)
        member(image, spacing, probabilities=filled)
        single.append(filled)
    assert np.abs(single[0] - single[1]).max() > 0.05
    mean = np.zeros((12, 17, 2), np.float32)
    together = Segmenter(tuple(one.members[0] for one in members))
    labels = together(image, spacing, probabilities=mean)
    np.testing.assert_allclose(mean, (single[0] + single[1]) / 2, atol=1e-6)
    np.testing.assert_array_equal(labels, mean.argmax(-1))


@pytest.mark.slow
def test_tiles_of_the_network_of_2015_equal_one_pass():
    # As wide and deep as the paper's, with fewer channels.
    model = presets.UNet2015(num_classes=2, features=(2, 2, 3, 3, 4))
    variables = model.init(jax.random.key(0), jnp.zeros((1, 572, 572, 1)))
    image = np.random.default_rng(0).normal(size=(700, 900, 1)).astype(np.float32)
    predict_fn = make_predict_fn(
        make_forward(model),
        variables,
        _preprocessing(2, crop_nonzero=False, intensity="zscore"),
        num_classes=2,
        patch_size=(572, 572),
        overlap=0.0,
        window_batch=2,
        margin=model.sizes(2).margin,
        multiple=model.sizes(2).multiple,
    )
    assert predict_fn.members[0].window == (388, 388)
    filled = np.zeros((700, 900, 2), np.float32)
    predict_fn(image, None, probabilities=filled)
    values = image[image != 0].astype(np.float64)
    normal = ((image - values.mean()) / values.std()).astype(np.float32)
    more = model.sizes(2).fitting_size((700 + 184, 900 + 184))
    pads = [(92, size - n - 92) for size, n in zip(more, (700, 900), strict=True)]
    mirrored = np.pad(normal, [*pads, (0, 0)], mode="reflect")
    logits = jax.jit(model.apply)(variables, mirrored[None])
    whole = np.asarray(jax.nn.softmax(logits, axis=-1))[0, :700, :900]
    assert whole.std() > 1e-3
    np.testing.assert_allclose(filled, whole, atol=1e-5)


def test_probabilities_that_are_none_end_the_run():
    plain = _predict_fn(_preprocessing(2), (6, 6))
    (member,) = plain.members
    image = np.full((9, 12, 1), 1, np.uint8)

    def forward(variables, windows, wanted):
        scores = member.forward(variables, windows, wanted)
        return np.asarray(scores) * np.float32(np.nan)

    broken = dataclasses.replace(member, forward=forward)
    with pytest.raises(RunError, match=r"scan.png: the network gives .* NaN"):
        dataclasses.replace(plain, members=(broken,))(image, None, name="scan.png")
    # Between the steps of a training the loss says it, with the step.
    lenient = dataclasses.replace(plain, members=(broken,), strict=False)
    assert lenient(image, None).shape == (9, 12)


@pytest.mark.parametrize("patch", [188, 204])
def test_windows_without_padding_are_large_enough_to_tile(patch):
    config = base.get_config()
    config.model.name, config.train.patch_size = "unet_2015", (patch, patch)
    for validation in (False, True):
        maker = create_predict_fn_maker(
            config,
            compile_network(config, create_network(config, axis_name=None)),
            _preprocessing(2),
            validation=validation,
        )
        (member,) = maker({}).members
        assert maker({}).strict is not validation
    assert member.window == (20, 20)
    assert member.margin == (92, 92)
    assert member.multiple == (16, 16)


def test_steps_are_taken_on_the_labels():
    image = np.full((9, 12, 1), 1, np.uint8)
    image[2:6, 2:6] = image[8, 11] = 200
    plain = _predict_fn(_preprocessing(2), (6, 6))
    kept = dataclasses.replace(plain, steps=(("largest_component", 1, None),))
    assert plain(image, None)[8, 11] == 1
    assert kept(image, None).sum() == 16


class _Scores(nn.Module):
    """The image's own channels as scores."""

    @nn.compact
    def __call__(self, x, *, train=False):
        return x


def test_with_a_sigmoid_head_a_pixel_is_background_where_no_class_reaches_a_half():
    # Scores of classes 0, 1, 2; class 0's own does not matter.
    scores = np.array([[9, -1, -2], [9, 1, -2], [9, 1, 2], [-9, -1, -1]], np.float32)
    windows = np.broadcast_to(scores[None, :, None], (1, 4, 1, 3))
    sigmoid = np.asarray(make_forward(_Scores(), head="sigmoid")({}, windows))
    assert sigmoid[0, :, 0].argmax(-1).tolist() == [0, 1, 2, 0]
    np.testing.assert_allclose(
        sigmoid[0, 1, 0, 1:], 1 / (1 + np.exp(-scores[1, 1:])), rtol=1e-5
    )
    softmax = np.asarray(make_forward(_Scores())({}, windows))
    assert softmax[0, :, 0].argmax(-1).tolist() == [0, 0, 0, 1]
