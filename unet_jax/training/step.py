"""The training step: state and batch in, new state and metrics out.

`make_train_step` composes the pieces below it, in the order in which they run: augment,
forward and loss, accumulate, reduce over devices, update, mask what is not finite.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from unet_jax.augment.draws import example_keys
from unet_jax.augment.policy import augment_batch
from unet_jax.losses.terms import LossTerm
from unet_jax.models.network import Outputs, outputs_of
from unet_jax.training.devices import AXIS, STOP, replicate
from unet_jax.training.nonfinite import code_of, finite_rows, problem_report
from unet_jax.training.objective import global_totals, supervised_objective
from unet_jax.training.targets import region_targets, targets_of

_DROPOUT = 1 << 20  # the number that dropout's keys are folded with

Batch = dict[str, jax.Array]
Metrics = dict[str, Any]
TrainStep = Callable[..., tuple["TrainState", Metrics]]


@flax.struct.dataclass
class TrainState:
    """Everything that a run carries from step to step, as one pytree.

    It holds no random key: keys are folded from the seed and the example's index.

    Attributes:
        step: number of updates done, int32 scalar.
        params: float32 parameters.
        batch_stats: running statistics of batch norm; empty for other norms.
        opt_state: state of the optimizer.
        learning_rate: factor of the next update, float32 scalar. The host sets it, from
            the schedule or the clock; 1 for an optimizer that has a rate of its own.
        ema_params: exponential moving average of the parameters; None when it is off.
        ema_batch_stats: average of ``batch_stats``, which go with ``params``: the
            averaged network has other activations. None when it is off, without batch
            norm, and in a run that began without it.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    learning_rate: jax.Array
    ema_params: Any = None
    ema_batch_stats: Any = None

    @property
    def eval_variables(self) -> dict[str, Any]:
        """Variables for validation, test and prediction."""
        return averaged_variables(vars(self))

    def starting_from(self, params: Any, batch_stats: Any) -> "TrainState":
        """Return the state with other weights, which its averages start from."""
        averages = {
            name: average and jax.tree.map(jnp.copy, start)
            for name, average, start in (
                ("ema_params", self.ema_params, params),
                ("ema_batch_stats", self.ema_batch_stats, batch_stats),
            )
        }
        return dataclasses.replace(
            self, params=params, batch_stats=batch_stats, **averages
        )

    def with_learning_rate(self, rate: float) -> "TrainState":
        """Return the state with the learning rate of the next update."""
        return dataclasses.replace(self, learning_rate=replicate(np.float32(rate)))


def create_train_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    input_shape: tuple[int, ...],
    ema: bool,
) -> TrainState:
    """Initialise the parameters and the optimizer: the state of step 0.

    ``input_shape`` is ``(*patch_size, channels)``; ``ema`` keeps moving averages of the
    parameters and of the statistics of batch norm.
    """

    def create() -> TrainState:
        variables = model.init(jax.random.key(seed), jnp.zeros((1, *input_shape)))
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        averages = (params, batch_stats or None) if ema else (None, None)
        # Copies: the step donates its buffers, and one buffer can go only once.
        ema_params, ema_batch_stats = jax.tree.map(jnp.copy, averages)
        return TrainState(
            step=jnp.int32(0),
            params=params,
            batch_stats=batch_stats,
            opt_state=optimizer.init(params),
            learning_rate=jnp.float32(1),
            ema_params=ema_params,
            ema_batch_stats=ema_batch_stats,
        )

    return jax.jit(create)()


def averaged_variables(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of a state for inference: averages where there are any.

    Args:
        state: fields of a `TrainState` by name; those that are missing are None.
    """
    averages = {name: state.get(f"ema_{name}") for name in ("params", "batch_stats")}
    return {
        name: (state.get(name) or {}) if average is None else average
        for name, average in averages.items()
    }


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    shapes: Outputs,
    num_classes: int | None = None,
    regions: np.ndarray | None = None,
    loss_terms: Sequence[LossTerm],
    include_background: bool,
    augmentation: dict[str, Any] | None,
    seed: int,
    accumulation: int,
    ema_decay: float,
) -> TrainStep:
    """Build ``train_step(state, batch, *, axis_name) -> (state, metrics)``.

    Args:
        model: the network. With deep supervision each coarser output has the same
            losses on a coarser label, half as heavy as the one before. Without padding
            the labels are cropped about their centre. A W-Net is trained by one sum of
            losses and one update for both halves (the paper alternates two updates).
        optimizer: the gradient transformation; its updates are multiplied by the
            state's learning rate.
        shapes: shapes of the network's outputs, from `output_shapes`.
        num_classes: number of classes of the labels; None for the network's channels.
        regions: ``(classes, channels)`` bool, the classes of the region of each channel
            but the first; None where channels are classes.
        loss_terms: the summands of the loss.
        include_background: whether overlap losses count class 0.
        augmentation: options of `augment_batch`; None for no augmentation. With its
            ``patch_size`` the images of a batch may be larger than a patch.
        seed: seed of augmentation and dropout; keys are folded from it and the example
            index.
        accumulation: number of parts that a device cuts its rows into.
        ema_decay: decay of the moving averages; used if the state carries them.

    Returns:
        The step. ``batch`` has ``image (batch, *patch, channels)``, ``label (batch,
        *patch)`` and ``example_index (batch,)``; and ``labelled (batch, classes)`` bool
        where not every case has all classes labelled. The metrics are scalars of the
        global batch: ``loss``, each term as ``<name>_loss``, and ``gradient_norm``; and
        ``problems`` of `problem_report`. If a number is not finite the state stays as
        it was, except for its step.
    """

    sizes = [one.shape[1:-1] for one in (shapes.logits, *shapes.deep)]

    def train_step(
        state: TrainState, batch: Batch, *, axis_name: str | None
    ) -> tuple[TrainState, Metrics]:
        labelled = batch.get("labelled")
        images, labels, keys = _augment(batch, augmentation, seed=seed)
        classes = num_classes or shapes.logits.shape[-1]
        targets = targets_of(labels, sizes, num_classes=classes)
        totals = [global_totals(target, axis_name=axis_name) for target in targets]
        if regions is not None:
            targets = tuple(region_targets(one, regions) for one in targets)
        objective = functools.partial(
            supervised_objective,
            loss_terms,
            totals=totals,
            include_background=include_background,
            axis_name=axis_name,
        )
        gradient = jax.grad(
            functools.partial(_forward_and_loss, model, objective), has_aux=True
        )
        gradients, metrics, batch_stats, codes = _accumulate(
            gradient, state, (images, targets, keys, labelled), parts=accumulation
        )
        gradients, metrics, batch_stats = _reduce(
            gradients, metrics, batch_stats, axis_name=axis_name
        )
        metrics["gradient_norm"] = optax.tree.norm(gradients)
        inputs = {
            "image": finite_rows(batch["image"]),
            "augmented image": finite_rows(images),
        }
        finite, problems = problem_report(
            metrics,
            gradients=gradients,
            batch_stats=batch_stats,
            example_index=batch["example_index"],
            codes=codes + code_of(inputs),
            axis_name=axis_name,
        )
        updated = _update(optimizer, state, gradients, batch_stats, ema_decay)
        return _mask(finite, updated, state), {**metrics, "problems": problems}

    return train_step


def _augment(
    batch: Batch, options: dict[str, Any] | None, *, seed: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Augment the examples; return images, labels and the keys of dropout."""
    images, labels = batch["image"], batch["label"]
    keys = example_keys(jax.random.key(seed), batch["example_index"])
    if options is not None:
        images, labels = augment_batch(keys, images, labels, **options)
    # Folded once more: a draw of dropout must not repeat one of augmentation.
    return images, labels, jax.vmap(jax.random.fold_in, (0, None))(keys, _DROPOUT)


def _forward(
    model: nn.Module, params: Any, batch_stats: Any, images: jax.Array, keys: jax.Array
) -> tuple[tuple[jax.Array, ...], jax.Array | None, Any]:
    """Run the network; return logits (finest first), reconstruction and statistics."""
    output, updated = model.apply(
        {"params": params, "batch_stats": batch_stats},
        images,
        train=True,
        keys=keys,
        mutable=["batch_stats"],
    )
    found = outputs_of(output)
    logits = (found.logits, *found.deep)
    return logits, found.reconstruction, updated.get("batch_stats", {})


def _forward_and_loss(
    model: nn.Module,
    objective: Callable[..., Any],
    params: Any,
    batch_stats: Any,
    images: jax.Array,
    targets: tuple[jax.Array, ...],
    keys: jax.Array,
    labelled: jax.Array | None,
) -> tuple[jax.Array, tuple[Metrics, Any, jax.Array]]:
    """Return what these examples add to the loss; metrics, statistics and codes."""
    logits, reconstruction, batch_stats = _forward(
        model, params, batch_stats, images, keys
    )
    loss, terms, finite = objective(
        logits=logits,
        targets=targets,
        images=images,
        reconstruction=reconstruction,
        labelled=labelled,
    )
    metrics = {"loss": loss, **{f"{name}_loss": value for name, value in terms.items()}}
    outputs = logits if reconstruction is None else (*logits, reconstruction)
    rows = jnp.stack([finite_rows(output) for output in outputs])
    codes = code_of({"network's output": jnp.all(rows, axis=0), "loss": finite})
    return loss, (metrics, batch_stats, codes)


def _accumulate(
    gradient: Callable[..., Any], state: TrainState, examples: Any, *, parts: int
) -> tuple[Any, Metrics, Any, jax.Array]:
    """Sum gradients and metrics over equal parts of the batch, one part at a time.

    Batch statistics go from part to part; codes stay in the order of the batch.
    """
    if parts == 1:
        gradients, (metrics, batch_stats, codes) = gradient(
            state.params, state.batch_stats, *examples
        )
        return gradients, metrics, batch_stats, codes

    def one_part(carry: Any, part: Any) -> Any:
        sums, batch_stats = carry
        gradients, (metrics, batch_stats, codes) = gradient(
            state.params, batch_stats, *part
        )
        return (jax.tree.map(jnp.add, sums, (gradients, metrics)), batch_stats), codes

    stacked = jax.tree.map(
        lambda array: array.reshape(parts, array.shape[0] // parts, *array.shape[1:]),
        examples,
    )
    first = jax.tree.map(lambda array: array[0], stacked)
    gradient = jax.jit(gradient, inline=True)  # traced once for the two calls
    shapes = jax.eval_shape(gradient, state.params, state.batch_stats, *first)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (shapes[0], shapes[1][0])
    )
    ((gradients, metrics), batch_stats), codes = jax.lax.scan(
        one_part, (zeros, state.batch_stats), stacked
    )
    return gradients, metrics, batch_stats, codes.ravel()


def _reduce(
    gradients: Any, metrics: Metrics, batch_stats: Any, *, axis_name: str | None
) -> tuple[Any, Metrics, Any]:
    """Sum gradients and metrics over the devices, and average the statistics."""
    if axis_name is None:
        return gradients, metrics, batch_stats
    gradients, metrics = jax.lax.psum((gradients, metrics), axis_name)
    # Statistics that are not synchronised differ between the devices.
    return gradients, metrics, jax.lax.pmean(batch_stats, axis_name)


def _update(
    optimizer: optax.GradientTransformation,
    state: TrainState,
    gradients: Any,
    batch_stats: Any,
    ema_decay: float,
) -> TrainState:
    """Make one update of the parameters and of the moving averages."""
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    updates = jax.tree.map(lambda leaf: state.learning_rate * leaf, updates)
    params = optax.apply_updates(state.params, updates)
    averages = (state.ema_params, state.ema_batch_stats)
    if state.ema_params is not None:
        # A young average follows quickly: it must not remember the initial values.
        decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
        averages = tuple(
            average and optax.incremental_update(new, average, 1 - decay)
            for new, average in zip((params, batch_stats), averages, strict=True)
        )
    return dataclasses.replace(
        state,
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        ema_params=averages[0],
        ema_batch_stats=averages[1],
    )


def _mask(finite: jax.Array, updated: TrainState, state: TrainState) -> TrainState:
    """Return the updated state, or the old one with the new step number.

    On the device: when the host reads the flag the next steps are under way already.
    """
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
    return dataclasses.replace(kept, step=updated.step)


def pmap_train_step(train_step: TrainStep, *, votes: bool = False) -> Any:
    """Map the step over all devices: the state whole, the batch by its first axis.

    With ``votes`` the batch carries ``stop (devices,)`` beside the examples, and the
    metrics its sum over all devices, so that all processes stop at one step.
    """
    mapped = functools.partial(train_step, axis_name=AXIS)

    def voting(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
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
