"""What is flagged as unlike training, by a tiny network on tiny images."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest
from scipy import ndimage

from unet_jax.data.case import Case
from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import InputError
from unet_jax.experiment.distance import DISTANCE, Describer
from unet_jax.experiment.finished import _read_familiar
from unet_jax.inference.features import make_features


class _Encoder(nn.Module):
    """A network with random weights, whose bottleneck has 6 channels."""

    @nn.compact
    def __call__(self, x, *, train=False):
        strides = (4,) * (x.ndim - 2)
        down = nn.relu(nn.Conv(6, strides, strides)(x))
        return nn.ConvTranspose(2, strides, strides)(down)


def _describer(dims, channels=1, *, beside=0):
    network = _Encoder()
    x = np.zeros((1, *[16] * dims, channels * (2 * beside + 1)), np.float32)
    preprocessing = Preprocessing(
        network_dims=dims,
        slice_axis=2,
        spacing=None,
        size=None,
        crop_nonzero=True,
        intensity="zscore",
        channels=channels,
        adjacent_slices=beside,
    )
    return Describer(
        make_features(network),
        network.init(jax.random.key(1), x),
        preprocessing,
        (16,) * dims,
    )


def _image(seed, *, shape=(48, 40), channels=1):
    """A head: bright and dark tissue in an ellipse, nothing around it."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2])))
    inside = (grid**2).sum(axis=0).T < 1.2
    inside = np.broadcast_to(inside[..., None], (*shape[:2], *(shape[2:] or (1,))))
    texture = ndimage.gaussian_filter(rng.normal(size=inside.shape), (2, 2, 0.5))
    tissue = (
        100
        + 40 * (texture > np.quantile(texture, 0.7))
        + rng.normal(0, 3, inside.shape)
    )
    pixels = np.where(inside, tissue, 0).reshape(shape)
    return np.stack([(1 + c) * pixels for c in range(channels)], axis=-1)


def _cases(seeds, **options):
    found = []
    for seed in seeds:
        image = _image(seed, **options).astype(np.float32)
        label = (image[..., 0] > 120).astype(np.int32)
        found.append(Case(str(seed), image, label, None, str(seed)))
    return found


def _fit(folder, describer, **options):
    sources = {
        "train": _cases(range(30), **options),
        "validation": _cases(range(30, 40), **options),
    }
    return describer.fit(folder / DISTANCE, sources, step=5)


@pytest.mark.parametrize(
    ("dims", "options", "beside"),
    [
        (2, {}, 0),
        (2, {"shape": (48, 40, 4), "channels": 2}, 0),  # slices of a volume
        (2, {"shape": (48, 40, 4)}, 1),
        (3, {"shape": (32, 32, 16)}, 0),
    ],
    ids=["picture", "slices", "slices and those beside", "volume"],
)
def test_other_images_are_beyond_and_new_ones_of_the_kind_are_not(
    tmp_path, dims, options, beside
):
    channels = options.get("channels", 1)
    describer = _fit(tmp_path, _describer(dims, channels, beside=beside), **options)

    def distance(image):
        return describer.distance(image, None)

    new = [distance(_image(seed, **options)) for seed in range(50, 60)]
    assert sum(one.is_beyond for one in new) <= 1
    head = _image(60, **options)
    rng = np.random.default_rng(0)
    others = {
        "inverted": head.max() - head,
        "noise": rng.uniform(1, 255, head.shape),
        "another contrast": np.where(head > 0, np.abs(5 * head - 450), 0),
        "blurred": ndimage.gaussian_filter(head, (3, 3, *[0] * (head.ndim - 2))),
        "one value": np.full(head.shape, 50.0),
    }
    for name, image in others.items():
        assert distance(image).is_beyond, name


def test_what_is_fitted_is_read_back_for_the_same_checkpoint(tmp_path):
    describer = _fit(tmp_path, _describer(2))
    first = (tmp_path / DISTANCE).read_bytes()
    image = _image(70)
    expected = describer.distance(image, None)
    familiar = _read_familiar(tmp_path / DISTANCE, 5)
    loaded = dataclasses.replace(describer, familiar=familiar)
    assert loaded.distance(image, None) == expected
    _fit(tmp_path, _describer(2))
    assert (tmp_path / DISTANCE).read_bytes() == first
    assert _read_familiar(tmp_path / DISTANCE, 6) is None
    assert _read_familiar(tmp_path / "nothing", 5) is None
    assert _describer(2).distance(image, None) is None
    for damaged in (b"", b"PK", first[: len(first) // 2]):
        (tmp_path / DISTANCE).write_bytes(damaged)
        with pytest.raises(InputError, match=r"distance\.npz: cannot be read"):
            _read_familiar(tmp_path / DISTANCE, 5)
