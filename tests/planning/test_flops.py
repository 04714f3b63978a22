import jax
import jax.numpy as jnp
import pytest

from unet_jax.planning.flops import dense_flops


def _counted(function, *arguments):
    return dense_flops(jax.jit(function).trace(*arguments).jaxpr)


def _convolve(x, kernel, **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    options = {"window_strides": (1, 1), "padding": "VALID"} | options
    return jax.lax.conv_general_dilated(x, kernel, dimension_numbers=numbers, **options)


X = jnp.ones((2, 9, 8, 6))
KERNEL = jnp.ones((3, 2, 6, 5))


@pytest.mark.parametrize(
    ("options", "kernel"),
    [
        ({}, KERNEL),
        ({"window_strides": (2, 2)}, KERNEL),
        ({"rhs_dilation": (2, 1)}, KERNEL),
        ({"feature_group_count": 3}, jnp.ones((3, 2, 2, 9))),
    ],
)
def test_a_convolution_without_padding_counts_as_xla_counts_it(options, kernel):
    function = jax.jit(lambda x, k: _convolve(x, k, **options))
    compiled = function.lower(X, kernel).compile()
    assert dense_flops(function.trace(X, kernel).jaxpr) == pytest.approx(
        compiled.cost_analysis()["flops"]
    )


def test_gradients_cost_a_forward_pass_each():
    forward = _counted(lambda x, k: _convolve(x, k, padding="SAME"), X, KERNEL)
    assert forward == 2 * (2 * 9 * 8) * (3 * 2) * 6 * 5

    def loss(x, kernel):
        return jnp.sum(_convolve(x, kernel, padding="SAME") ** 2)

    assert _counted(jax.grad(loss, (0, 1)), X, KERNEL) == 3 * forward


def test_zeros_between_pixels_cost_nothing():
    dilated = _counted(
        lambda x, k: _convolve(x, k, lhs_dilation=(2, 2), padding=((1, 2), (1, 0))),
        X,
        jnp.ones((2, 2, 6, 5)),
    )
    assert dilated == 2 * (2 * 19 * 15) * (2 * 2) * 6 * 5 // 4


def test_loops_branches_and_calls_are_followed():
    a = jnp.ones((4, 4))
    product = 2 * 4**3

    def repeated(a):
        return jax.lax.scan(lambda c, _: (c @ a, None), a, None, length=7)[0]

    assert _counted(repeated, a) == 7 * product
    assert _counted(lambda a: jax.jit(lambda b: b @ b)(a) @ a, a) == 2 * product
    branch = jax.lax.cond
    assert (
        _counted(lambda a: branch(a[0, 0] > 0, lambda b: b @ b, lambda b: b, a), a)
        == product
    )
    assert _counted(lambda a: jax.vmap(lambda b: b @ a)(jnp.stack([a] * 3)), a) == (
        3 * product
    )
    assert _counted(lambda a: a + 1, a) == 0
