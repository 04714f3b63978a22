"""The training step, and the one place where it is pmap-ed."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from unet_jax.augment.draws import example_keys
from unet_jax.augment.policy import augment_batch
from unet_jax.errors import InputError
from unet_jax.losses.terms import LossTerm
from unet_jax.models.network import outputs_of
from unet_jax.training.finite import code_of, finite_rows, problem_report
from unet_jax.training.objective import global_totals, supervised_objective, targets_of
from unet_jax.training.state import AXIS, TrainState

# Number that dropout's keys are folded with.
_DROPOUT = 1 << 20

STOP = "stop"
"""Key of the votes for a stop, in a batch and in the metrics."""

TrainStep = Callable[..., tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    loss_terms: Sequence[LossTerm],
    include_background: bool,
    augmentation: dict[str, Any] | None,
    seed: int,
    accumulation: int,
    ema_decay: float,
) -> TrainStep:
    """Build ``train_step(state, batch, *, axis_name) -> (state, metrics)``.

    Args:
        model: the network. One with deep supervision gives coarser logits too in
            training: each has the same losses on a coarser label, half as heavy as the
            one before. One without padding sees labels cropped about their centre.
            A W-Net gives a reconstruction too, for the loss of that name: all its
            losses are one sum, and one update moves both of its halves (the paper
            alternates two).
        optimizer: the gradient transformation; its updates are multiplied by the
            state's learning rate.
        loss_terms: the summands of the loss.
        include_background: whether overlap losses count class 0.
        augmentation: options of the augmentation policy; None for no augmentation.
        seed: of augmentation and dropout; keys are folded from it and the example
            index.
        accumulation: parts that the batch of a device is cut into.
        ema_decay: of the moving average; used if the state carries one.

    Returns:
        The step. ``batch`` has ``image (batch, *patch, channels)``, ``label (batch,
        *patch)`` and ``example_index (batch,)``; the metrics are scalars of the global
        batch: ``loss``, each term as ``<name>_loss``, and ``gradient_norm``; and
        ``problems`` of `problem_report`. Where a number is not finite the state stays
        as it was, except for its step.
    """

    def train_step(
        state: TrainState, batch: dict[str, jax.Array], *, axis_name: str | None
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        images, labels = batch["image"], batch["label"]
        keys = example_keys(jax.random.key(seed), batch["example_index"])
        if augmentation is not None:
            images, labels = augment_batch(keys, images, labels, **augmentation)
        # Folded once more: a draw of dropout must not repeat one of augmentation.
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys, _DROPOUT)

        def forward(params, batch_stats, images, keys):
            output, updated = model.apply(
                {"params": params, "batch_stats": batch_stats},
                images,
                train=True,
                keys=keys,
                mutable=["batch_stats"],
            )
            found = outputs_of(output)
            return (found.logits, *found.deep), found.reconstruction, updated

        shapes, *_ = jax.eval_shape(
            forward, state.params, state.batch_stats, images, keys
        )
        targets = targets_of(labels, [logits.shape[1:-1] for logits in shapes])
        totals = [global_totals(target, axis_name=axis_name) for target in targets]

        def loss_share(params, batch_stats, images, targets, keys):
            logits, made, updated = forward(params, batch_stats, images, keys)
            loss, terms, finite = supervised_objective(
                loss_terms,
                logits=logits,
                targets=targets,
                totals=totals,
                include_background=include_background,
                axis_name=axis_name,
                images=images,
                reconstruction=made,
            )
            metrics = {f"{name}_loss": share for name, share in terms.items()}
            outputs = logits if made is None else (*logits, made)
            found = {
                "network's output": jnp.all(
                    jnp.stack([finite_rows(output) for output in outputs]), axis=0
                ),
                "loss": finite,
            }
            statistics = updated.get("batch_stats", {})
            return loss, ({"loss": loss, **metrics}, statistics, code_of(found))

        gradients, metrics, batch_stats, codes = _accumulate(
            jax.grad(loss_share, has_aux=True),
            state,
            (images, targets, keys),
            accumulation,
        )
        if axis_name is not None:
            gradients, metrics = jax.lax.psum((gradients, metrics), axis_name)
            # Statistics that are not synchronised differ between the devices.
            batch_stats = jax.lax.pmean(batch_stats, axis_name)
        metrics["gradient_norm"] = optax.tree.norm(gradients)
        codes += code_of(
            {
                "image": finite_rows(batch["image"]),
                "augmented image": finite_rows(images),
            }
        )
        finite, problems = problem_report(
            metrics,
            gradients=gradients,
            batch_stats=batch_stats,
            example_index=batch["example_index"],
            codes=codes,
            axis_name=axis_name,
        )
        moved = _apply_gradients(optimizer, state, gradients, batch_stats, ema_decay)
        # Masked here: by the time the host reads the flag the next steps are under way.
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, state)
        return kept.replace(step=moved.step), {**metrics, "problems": problems}

    return train_step


def _accumulate(gradient_function, state, parts_of_batch, parts):
    """Add up gradients and metrics over equal parts of the batch, one at a time.

    What was found of each example is put in the order of the batch.
    """
    if parts == 1:
        gradients, (metrics, batch_stats, codes) = gradient_function(
            state.params, state.batch_stats, *parts_of_batch
        )
        return gradients, metrics, batch_stats, codes

    def one_part(carry, part):
        sums, batch_stats = carry
        gradients, (metrics, batch_stats, codes) = gradient_function(
            state.params, batch_stats, *part
        )
        return (jax.tree.map(jnp.add, sums, (gradients, metrics)), batch_stats), codes

    stacked = jax.tree.map(
        lambda array: array.reshape(parts, array.shape[0] // parts, *array.shape[1:]),
        parts_of_batch,
    )
    shapes = jax.eval_shape(
        gradient_function,
        state.params,
        state.batch_stats,
        *jax.tree.map(lambda array: array[0], stacked),
    )
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (shapes[0], shapes[1][0])
    )
    ((gradients, metrics), batch_stats), codes = jax.lax.scan(
        one_part, (zeros, state.batch_stats), stacked
    )
    return gradients, metrics, batch_stats, codes.ravel()


def _apply_gradients(optimizer, state, gradients, batch_stats, ema_decay):
    """Make one update of the parameters and of their moving average."""
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    updates = jax.tree.map(lambda leaf: state.learning_rate * leaf, updates)
    params = optax.apply_updates(state.params, updates)
    ema_params = state.ema_params
    if ema_params is not None:
        # A young average follows quickly: it must not remember the initial values.
        decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
        ema_params = optax.incremental_update(params, ema_params, 1 - decay)
    return state.replace(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        ema_params=ema_params,
    )


def pmap_train_step(train_step: TrainStep, *, votes: bool = False) -> Any:
    """Map the step over all devices: the state whole, the batch by its first axis.

    Args:
        train_step: from `make_train_step`.
        votes: the batch carries ``stop (devices,)`` beside the examples, and the
            metrics the sum of it over all devices: so processes stop at one step.
    """
    mapped = functools.partial(train_step, axis_name=AXIS)

    def voting(
        state: TrainState, batch: dict[str, jax.Array]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        examples = {key: value for key, value in batch.items() if key != STOP}
        state, metrics = mapped(state, examples)
        return state, {**metrics, STOP: jax.lax.psum(batch[STOP], AXIS)}

    return jax.pmap(
        voting if votes else mapped,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=(None, None),
        donate_argnums=(0,),
    )


def check_batch_size(
    batch_size: int, *, devices: int, accumulation: int, processes: int = 1
) -> None:
    """Refuse a global batch that the devices cannot share equally.

    Args:
        batch_size: of the global batch.
        devices: of all processes.
        accumulation: parts that the batch of a device is cut into.
        processes: that read the data.

    Raises:
        InputError: the batch does not divide.
    """
    parts = devices * accumulation
    if batch_size < 1 or batch_size % parts or batch_size % processes:
        raise InputError(
            f"train.batch_size: found {batch_size}, expected a multiple of {parts} "
            f"({devices} devices x train.accumulation {accumulation}); use "
            f"--config.train.batch_size={max(1, round(batch_size / parts)) * parts}"
        )


def shard_batch(batch: dict[str, np.ndarray], devices: int) -> dict[str, np.ndarray]:
    """Deal the rows of a batch to the devices like cards: row i to device i mod n.

    So a part of gradient accumulation is the same set of rows for any number of
    devices, and with it batch Dice and batch norm.

    Args:
        batch: arrays with the rows of this process on the first axis.
        devices: of this process.

    Returns:
        Arrays ``(devices, rows a device, ...)``.
    """
    return {
        key: np.swapaxes(
            array.reshape(array.shape[0] // devices, devices, *array.shape[1:]), 0, 1
        )
        for key, array in batch.items()
    }
