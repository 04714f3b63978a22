"""Equal runs give equal bits, and where they do not it is said."""

import jax
import jax.numpy as jnp
import pytest

from unet_jax.commands import check_determinism as determinism
from unet_jax.commands.check_determinism import check_determinism
from unet_jax.configs import smoke
from unet_jax.errors import RunError
from unet_jax.runtime import compilation


def _config(tmp_path):
    config = smoke.get_config()
    config.model.options.features = (4, 8)
    config.train.patch_size = (32, 32)
    config.data.num_threads = 4
    config.data.data_dir = str(tmp_path / "data")
    return config.lock()


@pytest.mark.slow
def test_a_few_steps_with_augmentation_on_four_devices_agree(tmp_path, monkeypatch):
    line = check_determinism(_config(tmp_path))
    assert "steps run twice on 4 devices agree in every bit" in line
    # And one bit that differs is found and named.
    states = iter([{"w": jnp.float32(1), "b": 2}, {"w": jnp.float32(1 + 2e-7), "b": 2}])
    monkeypatch.setattr(determinism, "_first_steps", lambda *_: next(states))
    with pytest.raises(RunError, match=r"1 of 2 arrays differ .* w among them"):
        check_determinism(_config(tmp_path))


def test_gpus_are_asked_for_reproducible_operations_unless_told_not_to(monkeypatch):
    on_cpu = compilation.compiler_options(True)
    assert on_cpu == (compilation.onednn_options() or {})
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compilation.compiler_options(True) == {"xla_gpu_deterministic_ops": True}
    assert compilation.compiler_options(False) == {}
