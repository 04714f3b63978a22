"""What networks are compiled with on a CPU, and what is not kept between processes."""

import os
import pathlib
import platform
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from unet_jax.runtime import compilation

X = np.random.default_rng(0).normal(size=(2, 16, 16, 24)).astype(np.float32)
KERNEL = np.random.default_rng(1).normal(size=(3, 3, 24, 24)).astype(np.float32)


def _convolved(x, kernel):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=numbers
    )


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """Look for oneDNN as a process of one device does; the tests have several."""
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    compilation.onednn_options.cache_clear()
    yield
    compilation.onednn_options.cache_clear()


def test_the_options_say_whether_xla_calls_onednn():
    options = compilation.onednn_options()
    if platform.machine() == "x86_64" and jax.version.__version_info__ >= (0, 12):
        assert options
    lowered = jax.jit(_convolved).lower(X, KERNEL)
    compiled = compilation.compile_with_options(lowered, options or {})
    assert ("__onednn$convolution" in compiled.as_text()) == (options is not None)
    expected = jax.jit(_convolved)(X, KERNEL)
    np.testing.assert_allclose(compiled(X, KERNEL), expected, rtol=1e-4, atol=1e-4)


def test_what_the_user_has_set_stays(monkeypatch):
    flags = os.environ.get("XLA_FLAGS", "")
    name = "xla_cpu_experimental_onednn_custom_call"
    monkeypatch.setenv("XLA_FLAGS", f"{flags} --{name}=false")
    # jaxlib has read its flags before: a convolution is XLA's own, as was asked for.
    assert compilation.onednn_options() is None
    assert compilation.compiler_options(deterministic=True) == {}
    # Without oneDNN programs can be written down.
    seconds = jax.config.jax_persistent_cache_min_compile_time_secs
    with compilation._kept_out_of_cache({}):
        assert jax.config.jax_persistent_cache_min_compile_time_secs == seconds


def test_a_jaxlib_without_the_option_has_none(monkeypatch):
    options = {"xla_cpu_no_such_option": True}
    monkeypatch.setattr(compilation, "_ONEDNN_OPTIONS", options)
    assert compilation.onednn_options() is None


def test_several_devices_do_without(monkeypatch):
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    assert compilation.onednn_options() is None


def test_programs_that_call_onednn_are_not_written_down(tmp_path):
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = [getattr(jax.config, name) for name in names]

    def written(function):
        function(X, KERNEL)
        return sorted(file.name for file in pathlib.Path(tmp_path).glob("*"))

    try:
        jax.experimental.compilation_cache.compilation_cache.reset_cache()
        for name, value in zip(names, (str(tmp_path), 0), strict=True):
            jax.config.update(name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            network = written(compilation.jit_network(lambda x, k: _convolved(x, k)))
            other = written(jax.jit(lambda x, k: jnp.sum(x) + jnp.sum(k)))
        assert getattr(jax.config, names[1]) == 0
    finally:
        for name, value in zip(names, before, strict=True):
            jax.config.update(name, value)
        jax.experimental.compilation_cache.compilation_cache.reset_cache()
    assert bool(network) == (compilation.onednn_options() is None)
    assert len(other) > len(network)
