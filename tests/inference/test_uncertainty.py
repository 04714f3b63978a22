"""Entropy and disagreement of known probabilities, by hand and through a network."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.configs import base
from unet_jax.data.preprocess import Preprocessing
from unet_jax.experiment.inference import compile_network, create_predict_fn_maker
from unet_jax.inference.forward import make_forward
from unet_jax.inference.segmenter import Segmenter, make_predict_fn
from unet_jax.inference.uncertainty import disagreement, entropy


def test_the_entropy_by_hand():
    probabilities = np.array([[0.5, 0.25, 0.25], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])
    found = entropy(probabilities)
    np.testing.assert_allclose(found, [1.5 * np.log(2) / np.log(3), 0, 1], atol=1e-12)
    own = np.array([[0.2, 0.5, 0.0], [0.5, 0.25, 0.5]])
    quarter = 2 - 0.75 * np.log2(3)
    expected = [0.5, (quarter + 1) / 2]
    np.testing.assert_allclose(entropy(own, head="sigmoid"), expected)


def test_the_disagreement_by_hand():
    # Certain votes that contradict each other, and undecided ones that agree.
    votes = [np.array([[1.0, 0], [0.5, 0.5]]), np.array([[0, 1.0], [0.5, 0.5]])]
    mean = np.full((2, 2), 0.5)
    np.testing.assert_allclose(disagreement(mean, votes), [1, 0])


class _Scaled(nn.Module):
    """Logits that grow along the first axis, so that mirror images disagree."""

    @nn.compact
    def __call__(self, x, *, train=False):
        scale = self.param("scale", nn.initializers.ones, ())
        place = jnp.arange(x.shape[1], dtype=jnp.float32).reshape(-1, 1, 1)
        logit = scale * (x + place)
        return jnp.concatenate([jnp.zeros_like(logit), logit, -logit], axis=-1)


def _segmenter(*scales, mirror=(), head="softmax", temperature=None):
    preprocessing = Preprocessing(
        network_dims=2,
        slice_axis=2,
        spacing=None,
        size=None,
        crop_nonzero=False,
        intensity="full_range",
        channels=1,
    )

    def network(scale, **options):
        return make_forward(_Scaled(), head=head, mirror_axes=mirror, **options)

    members = [
        make_predict_fn(
            network(scale),
            {"params": {"scale": jnp.float32(scale)}},
            preprocessing,
            num_classes=3,
            patch_size=(4, 5),
            overlap=0.0,
            window_batch=2,
            voting=network(scale, disagreement=True) if mirror else None,
        ).members[0]
        for scale in scales
    ]
    return Segmenter(tuple(members), head=head, temperature=temperature)


IMAGE = np.random.default_rng(0).integers(0, 255, (4, 10, 1)).astype(np.uint8)


def _votes(segmenter, mirror):
    """The probabilities of every vote, from single networks."""
    found = []
    for member in segmenter.members:
        scale = float(member.variables["params"]["scale"])
        for flips in (False, True) if mirror else (False,):
            image = IMAGE[::-1] if flips else IMAGE
            made = np.zeros((4, 10, 3), np.float32)
            _segmenter(scale, head=segmenter.head)(image, None, probabilities=made)
            found.append(made[::-1] if flips else made)
    return found


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize(
    ("scales", "mirror"), [((0.5, 2.0), ()), ((1.0,), (0,)), ((0.5, 2.0), (0,))]
)
def test_maps_are_those_of_all_votes_at_once(scales, mirror, head):
    segmenter = _segmenter(*scales, mirror=mirror, head=head, temperature=1.5)
    assert segmenter.disagrees
    filled = np.zeros((4, 10, 2), np.float32)
    calibrated = np.zeros((4, 10, 3), np.float32)
    labels = segmenter(IMAGE, None, uncertainty=filled, probabilities=calibrated)
    votes = _votes(segmenter, mirror)
    mean = np.mean(votes, axis=0)
    expected = disagreement(mean, votes, head=head)
    assert expected.max() > 0.05
    np.testing.assert_allclose(filled[..., 1], expected, atol=1e-5)
    np.testing.assert_allclose(
        filled[..., 0], entropy(segmenter.calibration(mean), head=head), atol=1e-5
    )
    np.testing.assert_allclose(calibrated, segmenter.calibration(mean), atol=1e-6)
    plain = _segmenter(*scales, mirror=mirror, head=head)
    np.testing.assert_array_equal(labels, plain(IMAGE, None))


def test_one_vote_has_an_entropy_alone():
    segmenter = _segmenter(1.0)
    assert not segmenter.disagrees
    filled = np.zeros((4, 10, 1), np.float32)
    made = np.zeros((4, 10, 3), np.float32)
    segmenter(IMAGE, None, uncertainty=filled, probabilities=made)
    np.testing.assert_allclose(filled[..., 0], entropy(made), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "disagrees"),
    [
        ({"eval.mirror": True}, True),
        ({"eval.mirror": False}, False),
        ({"eval.mirror": True, "augment.flip_probability": 0.0}, False),
    ],
)
def test_the_mirrored_images_of_a_run_are_its_votes(changes, disagrees):
    config = base.get_config()
    config.update_from_flattened_dict({"model.head": "sigmoid", **changes})
    preprocessing = _segmenter(1.0).members[0].preprocessing
    for validation in (False, True):
        make = create_predict_fn_maker(
            config,
            compile_network(config, _Scaled()),
            preprocessing,
            validation=validation,
        )
        segmenter = make({})
        assert segmenter.disagrees == (disagrees and not validation)
        assert segmenter.head == "sigmoid"


def test_the_scorer_gets_raw_probabilities_and_the_way_to_calibrated_ones():
    segmenter = _segmenter(1.0, temperature=2.0)
    raw, told = np.zeros((2, 4, 10, 3), np.float32)
    segmenter.method(IMAGE, None, probabilities=raw)
    segmenter(IMAGE, None, probabilities=told)
    assert abs(raw - told).max() > 0.05
    segmenter.method.calibrate(raw)
    np.testing.assert_array_equal(raw, told)
    assert _segmenter(1.0).method.calibrate is None


def test_regions_whose_mean_rounds_to_more_than_1_are_certain():
    above = np.nextafter(np.float32(1), np.float32(2))
    mean = np.array([[0, above, 1]], np.float32)
    assert entropy(mean, head="sigmoid").tolist() == [0]
    assert disagreement(mean, [mean, mean], head="sigmoid").tolist() == [0]
