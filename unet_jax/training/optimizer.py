"""The Optax optimiser and its schedule, from their configuration.

The optimiser gives updates for a learning rate of 1. The step multiplies them by the
rate that the host put into the state: so a run that ends by the clock needs no program
of its own.
"""

import jax
import optax

from unet_jax.errors import InputError


def create_schedule(
    *,
    name: str,
    learning_rate: float,
    warmup_steps: int,
    total_steps: int,
    final_fraction: float,
    power: float,
) -> optax.Schedule:
    """Warm up linearly from zero, then decay to ``final_fraction`` of the peak.

    Args:
        name: "cosine", "polynomial" or "constant".
        learning_rate: the peak.
        warmup_steps: steps of the linear warm-up; 0 for none.
        total_steps: steps of the run, warm-up included.
        final_fraction: the last learning rate as a share of the peak.
        power: exponent of the polynomial decay (0.9 in nnU-Net).

    Returns:
        A function of the step.

    Raises:
        InputError: an unknown name, or a warm-up that is not shorter than the run.
    """
    if not 0 <= warmup_steps < total_steps:
        raise InputError(
            f"optimizer.warmup_steps: found {warmup_steps}, expected fewer than the "
            f"{total_steps} steps of the run; lower it or raise train.steps"
        )
    decay_steps = total_steps - warmup_steps
    match name:
        case "cosine":
            decay = optax.cosine_decay_schedule(
                learning_rate, decay_steps, alpha=final_fraction
            )
        case "polynomial":
            decay = optax.polynomial_schedule(
                learning_rate, learning_rate * final_fraction, power, decay_steps
            )
        case "constant":
            decay = optax.constant_schedule(learning_rate)
        case _:
            raise InputError(
                f"optimizer.schedule: unknown schedule {name!r}; expected one of "
                "'cosine', 'polynomial', 'constant'"
            )
    if warmup_steps == 0:
        return decay
    warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.join_schedules([warmup, decay], [warmup_steps])


def create_optimizer(
    *,
    name: str,
    weight_decay: float,
    momentum: float,
    gradient_clip: float,
) -> optax.GradientTransformation:
    """Build the gradient transformation.

    Args:
        name: "adamw", or "sgd" with Nesterov momentum.
        weight_decay: decoupled for adamw, added to the gradient for sgd; norms and
            biases are spared.
        momentum: of sgd; adamw does not read it.
        gradient_clip: largest global norm of the gradient; 0 for no clipping.

    Returns:
        An Optax transformation whose updates are for a learning rate of 1.

    Raises:
        InputError: an unknown name.
    """
    match name:
        case "adamw":
            update = optax.adamw(1.0, weight_decay=weight_decay, mask=is_decayed)
        case "sgd":
            update = optax.chain(
                optax.add_decayed_weights(weight_decay, mask=is_decayed),
                optax.sgd(1.0, momentum=momentum, nesterov=True),
            )
        case _:
            raise InputError(
                f"optimizer.name: unknown optimiser {name!r}; expected one of "
                "'adamw', 'sgd'"
            )
    if gradient_clip > 0:
        return optax.chain(optax.clip_by_global_norm(gradient_clip), update)
    return update


def is_decayed(params: optax.Params) -> optax.Params:
    """Mark the kernels: norms' scales and all biases are vectors and are spared."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
