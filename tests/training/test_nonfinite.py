"""A step with a number that is not finite changes nothing, and names the cause."""

import functools
import io
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unet_jax.errors import InputError, RunError
from unet_jax.losses.terms import LossTerm, create_loss_terms
from unet_jax.models.network import Outputs, output_shapes
from unet_jax.models.presets import create_model
from unet_jax.report.progress import Progress
from unet_jax.report.writer import MetricWriter
from unet_jax.training.devices import AXIS, replicate, shard_batch
from unet_jax.training.log import TrainingLog
from unet_jax.training.nonfinite import (
    KINDS,
    NonfiniteSteps,
    group_names,
    kind_of,
    reading_data,
)
from unet_jax.training.step import create_train_state, make_train_step, pmap_train_step

BATCH, SIZE = 8, 16
LOSS = (("dice", 1.0, {}), ("cross_entropy", 0.5, {}))


def _batch(first=40):
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(BATCH, SIZE, SIZE, 1)).astype(np.float32),
        "label": rng.integers(0, 3, (BATCH, SIZE, SIZE)).astype(np.int32),
        "example_index": np.arange(first, first + BATCH, dtype=np.int32),
    }


class _Tiny(nn.Module):
    """The smallest network that the step takes: it compiles quickly."""

    axis_name: str | None = None
    norm: bool = False
    coarser: bool = False
    margin: int = 0
    reconstructs: bool = False

    @nn.compact
    def __call__(self, x, *, train=False, keys=None):
        x = nn.Dense(4, name="encoder_0")(x)
        if self.norm:
            x = nn.BatchNorm(not train, axis_name=self.axis_name, name="norm")(x)
        logits = nn.Dense(3, name="head")(x)
        if self.margin:
            cut = slice(self.margin, -self.margin)
            logits = logits[:, cut, cut]
        if self.reconstructs:
            return Outputs(logits, (), nn.Dense(1, name="decoder")(logits))
        deep = (logits[:, ::2, ::2],) if self.coarser and train else ()
        return Outputs(logits, deep)


def _setup(*, many=False, loss=None, accumulation=1, **network):
    """Return the compiled step for one device or four, and its first state."""
    optimizer = optax.adam(1e-2)
    step = make_train_step(
        _Tiny(axis_name=AXIS if many else None, **network),
        optimizer,
        shapes=output_shapes(_Tiny(**network), (SIZE, SIZE)),
        loss_terms=create_loss_terms(LOSS) if loss is None else loss,
        include_background=False,
        augmentation=None,
        seed=0,
        accumulation=accumulation,
        ema_decay=0.9,
    )
    state = create_train_state(
        _Tiny(**network), optimizer, seed=0, input_shape=(SIZE, SIZE, 1), ema=True
    )
    if many:
        step, state = pmap_train_step(step), replicate(state)
        return lambda state, batch: step(state, shard_batch(batch, 4)), state
    return jax.jit(functools.partial(step, axis_name=None)), state


def _codes(metrics):
    """Return the kind of problem of each bad example, by its index."""
    rows = np.asarray(metrics["problems"]["examples"])
    return {int(index): kind_of(int(code)) for index, code in rows if code}


@pytest.mark.parametrize(
    "options",
    [
        {"norm": True},
        {"accumulation": 2},
        {"many": True, "accumulation": 2, "norm": True},
        {"coarser": True},
        {"margin": 2},
    ],
    ids=["norm", "parts", "four devices", "deep supervision", "VALID"],
)
def test_a_bad_step_moves_nothing_but_its_number(options):
    step, state = _setup(**options)
    state, metrics = step(state, _batch())
    assert int(metrics["problems"]["masked"]) == 0
    assert not np.any(metrics["problems"]["groups"])
    examples = np.asarray(metrics["problems"]["examples"])
    np.testing.assert_array_equal(examples, [[index, 0] for index in range(40, 48)])
    before = jax.device_get(state)
    batch = _batch()
    batch["image"][5, 8, 8] = np.nan
    state, metrics = step(state, batch)
    after = jax.device_get(state)
    assert int(metrics["problems"]["masked"]) == 1
    assert (int(before.step), int(after.step)) == (1, 2)
    jax.tree.map(np.testing.assert_array_equal, after.replace(step=1), before)
    found = _codes(metrics)
    assert found[45] == "image"
    if not options.get("norm"):  # nothing carries it over to the others
        assert set(found) == {45}
    # The next one trains as if nothing had been.
    state, metrics = step(state, _batch())
    assert int(metrics["problems"]["masked"]) == 0
    for new, old in zip(
        jax.tree.leaves(jax.device_get(state.ema_params)),
        jax.tree.leaves(after.ema_params),
        strict=True,
    ):
        assert np.isfinite(new).all()
        assert (new != old).any()


def test_groups_are_stages_also_in_both_halves_of_a_w_net():
    def names(**options):
        network = create_model(num_classes=3, features=(3, 4), **options)
        images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 1), np.float32)
        variables = jax.eval_shape(network.init, jax.random.key(0), images)
        return set(group_names(variables["params"]))

    assert {"encoder_0", "encoder_1", "decoder_0", "head"} <= names(name="unet")
    halves = names(name="wnet", norm="instance")
    assert {"encoder/encoder_0", "encoder/head", "decoder/encoder_0"} <= halves


def test_a_reconstruction_that_overflows_names_its_example():
    spec = (("soft_ncut", 1.0, {"radius": 2.0}), ("reconstruction", 1.0, {}))
    step, state = _setup(loss=create_loss_terms(spec), reconstructs=True)
    batch = _batch()
    batch["image"][2] *= 1e25  # finite, and what the network makes of it; no square is
    after, metrics = step(state, batch)
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
    assert not np.isfinite(metrics["reconstruction_loss"])
    assert _codes(metrics) == {42: "loss"}


def test_a_loss_that_is_bad_for_one_example_names_it():
    def function(*, logits, labels):
        poisoned = jnp.arange(BATCH) == 3
        return jnp.where(poisoned[:, None, None], jnp.inf, logits[..., 0])

    term = LossTerm("own", 1.0, function, kind="pixel", pooled=False)
    step, state = _setup(loss=(term,))
    _, metrics = step(state, _batch())
    assert _codes(metrics) == {43: "loss"}
    assert np.isinf(metrics["own_loss"])


def test_a_gradient_that_overflows_names_its_group_and_no_example():
    # Behind the root of a number that is almost nothing the slope is enormous.
    def function(*, logits, labels):
        return jnp.mean(jnp.sqrt(1e-36 + 1e-36 * logits**2), axis=-1) * 1e38

    term = LossTerm("own", 1.0, function, kind="pixel", pooled=False)
    step, state = _setup(loss=(term,))
    after, metrics = step(state, _batch())
    assert np.isfinite(metrics["loss"])
    assert int(metrics["problems"]["masked"]) == 1
    assert _codes(metrics) == {}
    assert group_names(state.params) == ("encoder_0", "head")
    assert np.asarray(metrics["problems"]["groups"]).tolist()[1:] == [1, 0]
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


def test_statistics_that_overflow_are_kept_out():
    # Batch norm divides by an infinite variance: the outputs are zero, the loss finite.
    step, state = _setup(norm=True)
    batch = _batch()
    batch["image"] *= 1e20
    after, metrics = step(state, batch)
    assert np.isfinite(metrics["loss"])
    assert int(metrics["problems"]["masked"]) == 1
    assert int(metrics["problems"]["groups"][-1]) == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.batch_stats))


# ---- What the host makes of it ----


def _metrics(masked=1, groups=(0, 1, 0), codes=(0,) * 4, **values):
    values = {"loss": np.float32(np.nan if masked else 0.5), **values}
    examples = np.array([(100 + row, code) for row, code in enumerate(codes)], np.int32)
    problems = {"masked": masked, "groups": np.array(groups), "examples": examples}
    return {**values, "problems": problems}


def _judge(allowed=0, record=(), printed=None):
    return NonfiniteSteps(
        allowed=allowed,
        record=dict(record),
        groups=("encoder_0", "head"),
        name_example=lambda index: f"case 'p{index}', /data/p{index}.nii.gz, slice 3",
        report=(printed if printed is not None else []).append,
    )


def _bit(kind):
    return 1 << KINDS.index(kind)


def test_the_error_names_step_terms_groups_and_files():
    metrics = _metrics(
        codes=(0, _bit("image") | _bit("loss"), 0, 0), dice_loss=np.float32(np.nan)
    )
    with pytest.raises(RunError) as caught:
        _judge().skips(7, metrics)
    assert str(caught.value) == (
        "step 7: loss is nan, dice_loss is nan; the gradient of head is not finite; "
        "the image is not finite for example 101 (case 'p101', /data/p101.nii.gz, "
        "slice 3); fix or remove these cases; the step changed nothing; "
        "--config.train.skip_nonfinite=10 skips up to that many such steps"
    )


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (
            _metrics(groups=(1, 1, 0)),
            "gradient of encoder_0, head is not finite; every example by itself is "
            "finite: .* lower optimizer.learning_rate or set optimizer.gradient_clip",
        ),
        (
            _metrics(codes=(_bit("network's output"),) * 4),
            "output is not finite for any of 4 examples: its weights, or the",
        ),
        (
            _metrics(codes=(_bit("augmented image") | _bit("loss"), 0, 0, 0)),
            "the augmented image is not finite for example 100 .* narrow the ranges",
        ),
        (
            _metrics(codes=(_bit("image"),) * 4),
            r"example 100 \(.*\), 101 \(.*\), 102 \(.*\), 1 more; fix or remove",
        ),
        (
            _metrics(codes=(_bit("image"), _bit("loss"), 0, 0)),
            "the image is .* example 100 .*; the loss is not finite for example 101",
        ),
        (_metrics(groups=(0, 0, 1)), "running statistics of batch norm are not fin"),
    ],
)
def test_each_cause_has_its_words(metrics, message):
    with pytest.raises(RunError, match=message):
        _judge().skips(1, metrics)


def test_one_bad_image_is_not_blamed_on_the_batch_that_it_spoilt():
    output = _bit("network's output") | _bit("loss")
    metrics = _metrics(codes=(output, output | _bit("image"), output, _bit("loss")))
    with pytest.raises(RunError) as caught:
        _judge().skips(1, metrics)
    assert "the image is not finite for example 101 (" in str(caught.value)
    assert "the loss is not finite for example 103 (" in str(caught.value)
    assert "output" not in str(caught.value)


def test_steps_are_left_out_up_to_their_number_also_over_a_resume():
    printed = []
    judge = _judge(allowed=2, printed=printed)
    assert judge.record() == {"skipped_steps": 0}
    assert not judge.skips(1, _metrics(masked=0))
    assert judge.skips(2, _metrics())
    assert "step 2: loss is nan; " in printed[0]
    assert "skipped (1 of train.skip_nonfinite=2)" in printed[0]
    resumed = _judge(allowed=2, record={"score": 1.0, **judge.record()})
    assert resumed.skips(3, _metrics())
    with pytest.raises(RunError, match=r"step 4: .*; 2 such steps skipped before; "):
        resumed.skips(4, _metrics())
    assert resumed.record() == {"skipped_steps": 2}


def test_skipped_steps_do_not_enter_the_means(tmp_path):
    writer = MetricWriter(tmp_path)
    shown = io.StringIO()
    progress = Progress(5, images_per_step=4, stream=shown)
    log = TrainingLog(writer, progress, _judge(allowed=9), batch_size=4)
    for metrics in (_metrics(masked=0), _metrics(), _metrics(masked=0, loss=1.5)):
        log.add(metrics, learning_rate=0.1)
    log.write_steps(3)
    log.show_step(3, total=5)
    assert "step 3/5 (60 %), loss 1" in shown.getvalue()
    log.add(_metrics(), learning_rate=0.1)
    log.write_steps(4)
    log.add(_metrics(masked=0), learning_rate=0.1)
    log.write_steps(5)
    assert log.record()["skipped_steps"] == 2
    assert log.record()["metrics_bytes"] == (tmp_path / "metrics.jsonl").stat().st_size
    writer.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    head = {"split": "train", "learning_rate": 0.1}
    assert [json.loads(line) for line in lines] == [
        {**head, "step": 3, "loss": 1.0, "skipped_steps": 1},
        {**head, "step": 4, "skipped_steps": 1},
        {**head, "step": 5, "loss": 0.5},
    ]


@pytest.mark.parametrize("error", [InputError, RunError])
def test_a_case_that_cannot_be_read_names_the_step(error):
    with (
        pytest.raises(RunError, match=r"^step 9: a.png: gone; fix the data, "),
        reading_data(9),
    ):
        raise error("a.png: gone")
    # A bug of ours keeps its name and its traceback.
    with pytest.raises(KeyError), reading_data(9):
        raise KeyError
