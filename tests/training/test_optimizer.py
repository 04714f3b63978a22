import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unet_jax.errors import InputError
from unet_jax.training.optimizer import create_optimizer, create_schedule, is_decayed


def _schedule(name, **changes):
    options = {
        "learning_rate": 0.1,
        "warmup_steps": 10,
        "total_steps": 110,
        "final_fraction": 0.1,
        "power": 0.9,
    }
    return create_schedule(name=name, **{**options, **changes})


@pytest.mark.parametrize("name", ["cosine", "polynomial", "constant"])
def test_schedules_warm_up_and_end_where_they_say(name):
    schedule = _schedule(name)
    assert float(schedule(0)) == 0
    assert float(schedule(5)) == pytest.approx(0.05)
    assert float(schedule(10)) == pytest.approx(0.1)
    end = 0.1 if name == "constant" else 0.01
    assert float(schedule(110)) == pytest.approx(end)
    middle = {
        "cosine": 0.01 + 0.09 * 0.5,
        "polynomial": 0.01 + 0.09 * 0.5**0.9,
        "constant": 0.1,
    }
    assert float(schedule(60)) == pytest.approx(middle[name])
    assert float(_schedule(name, warmup_steps=0)(0)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "decay"),
    [
        ("cosine", optax.cosine_decay_schedule(0.1, 100, alpha=0.1)),
        ("polynomial", optax.polynomial_schedule(0.1, 0.01, 0.9, 100)),
        ("constant", optax.constant_schedule(0.1)),
    ],
)
def test_schedules_are_optax_s_and_wait_for_no_device(name, decay):
    warmup = optax.linear_schedule(0.0, 0.1, 10)
    expected = optax.join_schedules([warmup, decay], [10])
    schedule = _schedule(name)
    for step in (0, 1, 9.5, 10, 11, 37.25, 60, 109, 110, 200):
        assert type(schedule(step)) is float
        np.testing.assert_allclose(schedule(step), expected(step), 1e-5)


def test_wrong_names_and_warm_ups_are_refused():
    with pytest.raises(InputError, match="unknown schedule 'linear'; expected one of"):
        _schedule("linear")
    with pytest.raises(
        InputError, match="found 110, expected fewer than the 110 steps"
    ):
        _schedule("cosine", warmup_steps=110)
    with pytest.raises(InputError, match="unknown optimizer 'lion'; expected one of"):
        _optimizer("lion")


def _optimizer(name, **changes):
    options = {
        "weight_decay": 0.0,
        "momentum": 0.9,
        "gradient_clip": 0.0,
    }
    return create_optimizer(name=name, **{**options, **changes})


PARAMS = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "scale": jnp.ones(2)}


def _update(optimizer, gradients):
    updates, _ = optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)
    return updates


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_spares_norms_and_biases(name):
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates = _update(_optimizer(name, weight_decay=0.5), zeros)
    assert np.all(updates["kernel"] < 0)
    np.testing.assert_array_equal(updates["bias"], 0)
    np.testing.assert_array_equal(updates["scale"], 0)
    assert is_decayed(PARAMS) == {"kernel": True, "bias": False, "scale": False}


def test_sgd_has_nesterov_momentum():
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    # The first Nesterov update is gradient + momentum * gradient.
    updates = _update(_optimizer("sgd"), ones)
    np.testing.assert_allclose(updates["bias"], -1.9, rtol=1e-6)


def test_muon_makes_wide_kernels_orthogonal_and_leaves_others_to_adam():
    random = np.random.default_rng(0)
    shapes = {"wide": (3, 3, 8, 16), "image": (3, 3, 1, 16), "classes": (1, 1, 16, 4)}
    params = {
        name: jnp.asarray(random.normal(size=shape), jnp.float32)
        for name, shape in {**shapes, "bias": (16,)}.items()
    }
    optimizer = _optimizer("muon")
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    singular = jnp.linalg.svd(updates["wide"].reshape(-1, 16), compute_uv=False)
    assert singular.min() > 0.5 * singular.max()
    assert float(jnp.sqrt(jnp.mean(updates["wide"] ** 2))) == pytest.approx(0.2, 0.2)
    for name in ("image", "classes", "bias"):  # all of Adam's first updates are equal
        sizes = jnp.abs(updates[name])
        np.testing.assert_allclose(sizes, sizes.ravel()[0], rtol=1e-3)
        np.testing.assert_array_equal(jnp.sign(updates[name]), -jnp.sign(params[name]))


def test_clipping_bounds_the_global_norm():
    huge = jax.tree.map(lambda leaf: 100 * jnp.ones_like(leaf), PARAMS)
    updates = _update(_optimizer("sgd", momentum=0.0, gradient_clip=2.0), huge)
    assert float(optax.tree.norm(updates)) == pytest.approx(2.0, rel=1e-5)
    free = _update(_optimizer("sgd", momentum=0.0), huge)
    assert float(optax.tree.norm(free)) == pytest.approx(100 * 8**0.5, rel=1e-5)
