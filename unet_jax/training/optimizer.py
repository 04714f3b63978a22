"""Creates the Optax optimizer and its learning-rate schedule.

The optimizer gives updates for a learning rate of 1. The step multiplies them by the
rate in the state, which the host sets: a run that ends by the clock needs no other
program.
"""

import math
from collections.abc import Callable

import jax
import optax

from unet_jax.errors import InputError, setting

Schedule = Callable[[float], float]
"""``(updates done) -> learning rate``.

It runs on the host. Optax's own schedules run on the device: their result comes after
the steps under way, and the host could not work ahead.
"""

_SCHEDULES = ("cosine", "polynomial", "constant")
_RMS_OF_ADAM = 0.2  # root mean square of Adam's updates (Liu et al. 2025)
_FEW_CHANNELS = 8  # of the image, the classes and depthwise kernels, about


def create_schedule(
    *,
    name: str,
    learning_rate: float,
    warmup_steps: int,
    total_steps: int,
    final_fraction: float,
    power: float,
) -> Schedule:
    """Warm up linearly from zero, then decay to ``final_fraction`` of the peak.

    Args:
        name: "cosine", "polynomial" or "constant".
        learning_rate: peak learning rate.
        warmup_steps: steps of the linear warm-up; 0 for none.
        total_steps: steps of the run, warm-up included.
        final_fraction: last learning rate as a fraction of the peak.
        power: exponent of the polynomial decay (0.9 in nnU-Net).

    Raises:
        InputError: an unknown name, or a warm-up that is not shorter than the run.
    """
    if not 0 <= warmup_steps < total_steps:
        raise InputError(
            f"optimizer.warmup_steps: found {warmup_steps}, expected fewer than the "
            f"{total_steps} steps of the run; give "
            f"{setting('optimizer.warmup_steps', total_steps // 10)}, or raise "
            "train.steps"
        )
    if name not in _SCHEDULES:
        raise InputError(
            f"optimizer.schedule: unknown schedule {name!r}; expected one of "
            f"{', '.join(map(repr, _SCHEDULES))}"
        )

    def schedule(step: float) -> float:
        if step < warmup_steps:
            return learning_rate * step / warmup_steps
        elapsed = min((step - warmup_steps) / (total_steps - warmup_steps), 1.0)
        match name:
            case "cosine":
                left = (1 + math.cos(math.pi * elapsed)) / 2
            case "polynomial":
                left = (1 - elapsed) ** power
            case _:
                left = 1.0
        return learning_rate * (final_fraction + (1 - final_fraction) * left)

    return schedule


def create_optimizer(
    *, name: str, weight_decay: float, momentum: float, gradient_clip: float
) -> optax.GradientTransformation:
    """Build the gradient transformation, for a learning rate of 1.

    Args:
        name: "adamw", "muon", or "sgd" with Nesterov momentum. Muon makes the update
            of each kernel orthogonal and as large as Adam's, so that Adam's learning
            rates serve; biases, norms and kernels of few channels have Adam.
        weight_decay: weight decay of the kernels, decoupled for adamw and muon (which
            decays those that it makes orthogonal), added to the gradient for sgd; norms
            and biases have none.
        momentum: momentum of sgd; the others do not read it.
        gradient_clip: largest global norm of the gradient; 0 for no clipping.

    Raises:
        InputError: an unknown name.

    Source: Jordan 2024 (github.com/KellerJordan/Muon) and Liu et al. 2025
    (arXiv:2502.16982) for Muon.
    """
    match name:
        case "adamw":
            update = optax.adamw(1.0, weight_decay=weight_decay, mask=is_decayed)
        case "muon":
            update = optax.contrib.muon(
                1.0,
                weight_decay=weight_decay,
                weight_decay_mask=is_decayed,
                muon_weight_dimension_numbers=_as_matrices,
                consistent_rms=_RMS_OF_ADAM,
            )
        case "sgd":
            update = optax.chain(
                optax.add_decayed_weights(weight_decay, mask=is_decayed),
                optax.sgd(1.0, momentum=momentum, nesterov=True),
            )
        case _:
            raise InputError(
                f"optimizer.name: unknown optimizer {name!r}; expected one of "
                "'adamw', 'muon', 'sgd'"
            )
    if gradient_clip > 0:
        return optax.chain(optax.clip_by_global_norm(gradient_clip), update)
    return update


def is_decayed(params: optax.Params) -> optax.Params:
    """Mark the kernels for weight decay; norms and biases are vectors, without it."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _as_matrices(params: optax.Params) -> optax.Params:
    """Say which kernels Muon reads as matrices: all axes but the last against it."""

    def of_kernel(leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        if leaf.ndim < 2 or min(leaf.shape[-2:]) < _FEW_CHANNELS:
            return None
        return optax.contrib.MuonDimensionNumbers(
            tuple(range(leaf.ndim - 1)), leaf.ndim - 1
        )

    return jax.tree.map(of_kernel, params)
