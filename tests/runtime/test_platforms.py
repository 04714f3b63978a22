import jax
import pytest

from unet_jax.errors import InputError
from unet_jax.runtime.platforms import check_platform


class _Device:
    platform = "gpu"


def test_the_platforms_of_the_machine_are_named(monkeypatch):
    check_platform()
    settings = {}

    def devices():
        if settings:
            return [_Device(), _Device()]
        raise AssertionError  # as jax 0.10 for CUDA without its plugin

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.delenv("JAX_PLATFORM_NAME", raising=False)
    with pytest.raises(InputError) as caught:
        check_platform()
    assert str(caught.value) == (
        "JAX_PLATFORMS=cuda: found no such device on this machine, expected one of its "
        "platforms: cpu, gpu; set JAX_PLATFORMS=cpu, or unset the variable"
    )


def test_a_device_that_another_program_holds_keeps_its_reason(monkeypatch):
    def devices():
        raise RuntimeError("Unable to initialize backend 'tpu': it is in\nuse (set ...")

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setattr(jax.config, "update", lambda *setting: None)
    for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=r"^jax: found .*'tpu': it is in use .*: cpu;"):
        check_platform()
