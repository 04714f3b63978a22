"""Swin UNETR beyond its golden numbers: sizes, windows, masks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.models import swin_unetr

_Small = functools.partial(
    swin_unetr.SwinUNETR, 3, features=12, depths=(2, 2), heads=(2, 3), window_size=3
)


def _image(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("spatial", [(19, 33), (9, 17, 8)])
def test_any_size_is_padded_with_its_last_pixels_and_cropped_back(
    spatial, formula_params, apply
):
    x = _image(1, *spatial, 2)
    network = _Small()
    params = formula_params(network, x)
    logits = apply(network, params, x)
    assert logits.shape == (1, *spatial, 3)
    pads = [(0, -size % 8) for size in spatial]
    whole = jnp.pad(x, ((0, 0), *pads, (0, 0)), mode="edge")
    padded = apply(network, params, whole)
    np.testing.assert_allclose(logits, padded[:, *map(slice, spatial)], atol=1e-5)


@pytest.mark.slow
def test_every_parameter_matters(formula_params, apply):
    x = _image(1, 32, 16, 2)
    network = _Small()

    def loss(params):
        return jnp.sum(jnp.sin(apply(network, params, x, train=True)))

    gradients = jax.jit(jax.grad(loss))(formula_params(network, x))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.abs(leaf).max() > 1e-5, jax.tree_util.keystr(path)


def test_windows_go_back_to_where_they_came_from():
    x = np.arange(2 * 6 * 4 * 9 * 5).reshape(2, 6, 4, 9, 5)
    windows = swin_unetr.to_windows(x, (3, 2, 3))
    assert windows.shape == (2, 2 * 2 * 3, 18, 5)
    np.testing.assert_array_equal(windows[1, 4].reshape(3, 2, 3, 5), x[1, :3, 2:4, 3:6])
    back = swin_unetr.from_windows(windows, (3, 2, 3), (6, 4, 9))
    np.testing.assert_array_equal(back, x)


def test_relative_positions_have_one_row_for_each_offset():
    index = swin_unetr.relative_positions(3, 2)
    places = [(row, column) for row in range(3) for column in range(3)]
    rows = {}
    for i, a in enumerate(places):
        for j, b in enumerate(places):
            offset = (a[0] - b[0], a[1] - b[1])
            assert rows.setdefault(offset, index[i, j]) == index[i, j]
    assert sorted(rows.values()) == list(range(25))


def test_the_mask_keeps_apart_what_the_shift_brought_together():
    grid, window, shift = (6, 3), (3, 3), (1, 0)
    mask = swin_unetr.shift_mask(grid, window, shift)
    rows = np.roll(np.arange(6), -1)  # of the grid before the shift
    windows = swin_unetr.to_windows(
        np.broadcast_to(rows[:, None], grid)[None, ..., None], window
    )[0, ..., 0]
    # Row 0 was rolled to the end, beside rows 4 and 5: they may not see it.
    apart = (windows[:, :, None] == 0) != (windows[:, None, :] == 0)
    apart &= (windows == 0).any(1)[:, None, None]
    np.testing.assert_array_equal(mask < 0, apart)
    assert set(np.unique(mask)) == {0, swin_unetr.OTHER_REGION}


def test_shifted_blocks_let_windows_see_their_neighbours(formula_params, apply):
    x = jnp.zeros((1, 32, 32, 1)).at[0, 16, 16].set(10.0)
    network = _Small(depths=(2, 2))
    params = formula_params(network, x)

    def states(x):
        capture = {"mutable": "intermediates", "capture_intermediates": True}
        _, found = apply(network, params, x, **capture)
        names = ("stage_0_0", "stage_0_1")
        return [found["intermediates"][name]["__call__"][0] for name in names]

    changed = [
        np.argwhere(np.abs(one - other)[0].max(-1) > 1e-6)
        for one, other in zip(states(x), states(0 * x), strict=True)
    ]
    # Pixel 8 of the embedding lies in the window of 6, 7 and 8; shifted, in 7, 8 and 9.
    assert (changed[0].min(), changed[0].max()) == (6, 8)
    assert (changed[1].min(), changed[1].max()) == (4, 9)


@pytest.mark.slow
def test_computes_in_bfloat16_with_logits_in_float32(formula_params, apply):
    x = _image(1, 16, 16, 1)
    params = formula_params(_Small(), x)
    exact = apply(_Small(), params, x)
    found = apply(_Small(dtype=jnp.bfloat16), params, x)
    assert found.dtype == jnp.float32
    assert 0 < np.abs(found - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": (2,)}, "heads has 1 entries; expected 2"),
        ({"heads": (2, 5)}, r"expected that 5 divides the 24 channels of stage 1"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(_Small(**options).init, jax.random.key(0), _image(1, 16, 16, 1))
