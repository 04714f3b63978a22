"""Checks that jax finds the platform that the environment asks for."""

import os

import jax

from unet_jax.errors import InputError

_VARIABLES = {
    "JAX_PLATFORMS": "jax_platforms",
    "JAX_PLATFORM_NAME": "jax_platform_name",
}
"""Variable of the environment -> the setting of jax that it gives."""


def check_platform() -> None:
    """Start jax on its devices, after the processes of a run have joined.

    Raises:
        InputError: the environment names a platform that this machine does not have,
            or no platform can be used.
    """
    try:
        jax.devices()
    except Exception as error:  # without a plugin for CUDA it is an AssertionError
        given = [f"{n}={os.environ[n]}" for n in _VARIABLES if os.environ.get(n)]
        reason = " ".join(str(error).partition("(set JAX_PLATFORMS")[0].split())
        because = f" ({reason[:200]})" if reason else ""
        found = _found()
        raise InputError(
            f"{' '.join(given) or 'jax'}: found no such device on this machine"
            f"{because}, expected one of its platforms: {', '.join(found)}; set "
            f"JAX_PLATFORMS={found[0]}, or unset the variable"
        ) from error


def _found() -> list[str]:
    """List the platforms that jax finds if none is asked for."""
    try:
        for setting in _VARIABLES.values():
            jax.config.update(setting, "")
        return sorted({device.platform for device in jax.devices()} | {"cpu"})
    except Exception:  # a plugin that fails; the CPU is always there
        return ["cpu"]
