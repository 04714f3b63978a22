"""A run on images alone: nothing reads a label before the last checkpoint."""

import contextlib
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unet_jax.commands import train
from unet_jax.configs import smoke
from unet_jax.errors import InputError
from unet_jax.experiment import run
from unet_jax.experiment.data import open_dataset
from unet_jax.experiment.finished import load_run
from unet_jax.experiment.network import create_network
from unet_jax.losses.terms import create_loss_terms, reads_labels
from unet_jax.losses.unsupervised import reconstruction_loss, soft_ncut_loss
from unet_jax.models.network import Outputs, output_shapes
from unet_jax.models.presets import create_model
from unet_jax.training.checkpoint import Checkpoints
from unet_jax.training.devices import AXIS, replicate, shard_batch
from unet_jax.training.images_alone import (
    check_losses_of_images,
    check_losses_of_network,
    make_validation,
)
from unet_jax.training.step import create_train_state, make_train_step, pmap_train_step

LOSS = (("soft_ncut", 1.0, {"radius": 2.0}), ("reconstruction", 2.0, {}))
SMALL = {
    "model.name": "wnet",
    "model.options.features": (4, 6),
    "model.clusters": 5,
    "train.steps": 4,
    "train.patch_size": (32, 32),
    "train.batch_size": 4,
    "eval.every_steps": 2,
    "eval.train_images": 2,
    "eval.distance": False,
    "eval.overlap": 0.0,
    "eval.window_batch": 16,
    "log.every_steps": 2,
    "log.overlays": 1,
    "optimizer.warmup_steps": 1,
    "data.foreground_oversampling": 0.0,
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


def _config(shared, **changes):
    config = smoke.get_config()
    config.augment.enabled = False
    config.data.data_dir = str(shared / "data")
    config.loss = LOSS
    config.update_from_flattened_dict({**SMALL, **changes})
    return config.lock()


class LabelWasReadError(Exception):
    pass


class _Unreadable:
    """A case whose label raises when it is read."""

    def __init__(self, case):
        self._case = case

    def __getattr__(self, name):
        if name == "label":
            raise LabelWasReadError
        return getattr(self._case, name)


@dataclasses.dataclass(frozen=True)
class _Changed:
    """A data set whose cases went through a function."""

    dataset: object
    change: object

    @property
    def fingerprint(self):
        return self.dataset.fingerprint

    @property
    def splits_record(self):
        return self.dataset.splits_record

    def source(self, split):
        source = self.dataset.source(split)
        return [self.change(source[index]) for index in range(len(source))]


@contextlib.contextmanager
def _data(monkeypatch, change):
    with monkeypatch.context() as patch:
        patch.setattr(
            run, "open_dataset", lambda *a, **k: _Changed(open_dataset(*a, **k), change)
        )
        yield


def _shuffled(case):
    rng = np.random.default_rng(0)
    return dataclasses.replace(case, label=rng.permutation(case.label))


def _state(workdir):
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore_raw(None)


@pytest.fixture(scope="module")
def finished(shared, no_figures):
    workdir = shared / "finished"
    train.train_and_evaluate(_config(shared), workdir)
    return workdir


@pytest.mark.slow
def test_no_label_is_read_before_the_last_checkpoint(
    shared, finished, tmp_path, monkeypatch
):
    config = _config(shared)
    with (
        _data(monkeypatch, _Unreadable),
        pytest.raises(LabelWasReadError) as error,
    ):
        train.train_and_evaluate(config, tmp_path)
    # It is the clusters' names that want one, and by then the training is over.
    assert "with_named_clusters" in [entry.name for entry in error.traceback]
    jax.tree.map(np.testing.assert_array_equal, _state(tmp_path), _state(finished))
    assert int(_state(tmp_path)["step"]) == 4
    metrics = [(path / "metrics.jsonl").read_bytes() for path in (tmp_path, finished)]
    assert metrics[0] == metrics[1]


@pytest.mark.slow
def test_other_labels_change_names_and_scores_alone(
    shared, finished, tmp_path, monkeypatch
):
    with _data(monkeypatch, _shuffled):
        scores = train.train_and_evaluate(_config(shared), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, _state(tmp_path), _state(finished))
    before = json.loads((finished / "test_metrics.json").read_text())
    assert scores["mean"] != before["mean"]
    assert scores["checkpoint_step"] == before["checkpoint_step"]


@pytest.mark.slow
def test_validation_is_by_the_loss_and_chooses_the_checkpoint(finished):
    rows = [
        json.loads(x) for x in (finished / "metrics.jsonl").read_text().split("\n")[:-1]
    ]
    validated = {row["step"]: row["loss"] for row in rows if row["split"] == "val"}
    assert set(validated) == {2, 4}
    assert not any(key.startswith("dice") for row in rows for key in row)
    results = json.loads((finished / "test_metrics.json").read_text())
    assert results["checkpoint_step"] == min(validated, key=validated.get)


@pytest.mark.slow
def test_its_clusters_are_classes_when_it_is_loaded_again(finished):
    record = json.loads((finished / "clusters.json").read_text())
    groups = record["clusters_of_class"]
    assert len(groups) == 4
    assert sorted(index for group in groups for index in group) == list(range(5))
    predict_fn = load_run(finished).predict_fn
    image = np.random.default_rng(0).integers(1, 255, (40, 36, 1)).astype(np.uint8)
    probabilities = np.zeros((40, 36, 4), np.float32)
    labels = predict_fn(image, None, probabilities=probabilities)
    channels = np.zeros((40, 36, 5), np.float32)
    predict_fn.of_clusters()(image, None, probabilities=channels)
    for index, group in enumerate(groups):
        np.testing.assert_allclose(
            probabilities[..., index], channels[..., group].sum(-1), atol=1e-5
        )
    np.testing.assert_array_equal(labels, probabilities.argmax(-1))


@pytest.mark.slow
def test_what_a_crop_leaves_out_is_background_whatever_cluster_0_is(finished):
    predict_fn = load_run(finished).predict_fn
    image = np.zeros((60, 64, 1), np.uint8)
    image[10:40, 12:50] = 150
    labels = predict_fn(image, None, reference=((150.0, 30.0),))
    assert not labels[:10].any()
    assert not labels[:, 50:].any()


@pytest.mark.slow
def test_validation_is_the_weighted_sum_of_the_terms():
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(2, 16, 16, 1)).astype(np.float32) for _ in range(2)]
    model = create_model(name="wnet", num_classes=3, features=(3,), norm="batch")
    variables = model.init(jax.random.key(0), jnp.asarray(batches[0]))
    got = make_validation(model, create_loss_terms(LOSS), batches)(variables)
    cuts, errors = [], []
    for images in batches:
        made = model.apply(variables, jnp.asarray(images))
        cuts.append(soft_ncut_loss(logits=made.logits, images=images, radius=2.0))
        errors.append(
            reconstruction_loss(reconstruction=made.reconstruction, images=images)
        )
    np.testing.assert_allclose(got["soft_ncut_loss"], np.mean(cuts), rtol=1e-5)
    np.testing.assert_allclose(got["reconstruction_loss"], np.mean(errors), rtol=1e-5)
    np.testing.assert_allclose(
        got["loss"], np.mean(cuts) + 2 * np.mean(errors), rtol=1e-5
    )


@pytest.mark.slow
def test_the_pmapped_step_is_the_same_on_four_devices_and_labels_leave_it_alone():
    optimizer = optax.sgd(0.1)
    options = {
        "loss_terms": create_loss_terms(LOSS),
        "include_background": False,
        "augmentation": None,
        "seed": 0,
        "accumulation": 1,
        "ema_decay": 0.0,
    }

    def network(axis_name):
        return create_model(
            name="wnet",
            num_classes=3,
            features=(3, 4),
            convolutions_per_stage=1,
            norm="instance",
            axis_name=axis_name,
        )

    rng = np.random.default_rng(0)
    batch = {
        "image": rng.normal(size=(8, 16, 16, 1)).astype(np.float32),
        "label": rng.integers(-1, 3, (8, 16, 16)).astype(np.int32),
        "example_index": np.arange(8, dtype=np.int32),
    }
    state = create_train_state(
        network(None), optimizer, seed=0, input_shape=(16, 16, 1), ema=False
    )
    before = jax.device_get(state.params)
    options["shapes"] = output_shapes(network(None), (16, 16))
    step = make_train_step(network(None), optimizer, **options)
    one = jax.jit(step, static_argnames="axis_name")
    many = pmap_train_step(make_train_step(network(AXIS), optimizer, **options))
    after, metrics = one(state, batch, axis_name=None)
    other, same = one(state, {**batch, "label": 0 * batch["label"]}, axis_name=None)
    jax.tree.map(np.testing.assert_array_equal, after, other)
    jax.tree.map(np.testing.assert_array_equal, metrics, same)
    spread, shared = many(replicate(state), shard_batch(batch, 4))
    assert set(metrics) - {"problems"} == {
        "loss",
        "soft_ncut_loss",
        "reconstruction_loss",
        "gradient_norm",
    }
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), shared, metrics
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        jax.device_get(spread.params),
        jax.device_get(after.params),
    )
    # One update moves both halves.
    for half in ("encoder", "decoder"):
        moved = [
            np.abs(np.asarray(new) - old).max()
            for new, old in zip(
                jax.tree.leaves(after.params[half]),
                jax.tree.leaves(before[half]),
                strict=True,
            )
        ]
        assert max(moved) > 0


def test_a_run_is_on_images_alone_only_if_no_loss_reads_a_label():
    assert not reads_labels(LOSS)
    assert reads_labels((*LOSS, ("dice", 1.0, {})))


def _shape(*size):
    return jax.ShapeDtypeStruct((1, *size, 3), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spec": LOSS[:1]}, "makes reconstructions; the loss 'reconstruction' and"),
        ({"reconstruction": None}, "makes no reconstructions; the loss 'reconstruct"),
        ({"logits": _shape(6, 8)}, "compares .* whole image of 8 x 8, .* gives 6 x 8;"),
        ({"deep": (_shape(4, 4),)}, "network gives 8 x 8 and 4 x 4; expected one"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message):
    fitting = {"logits": _shape(8, 8), "reconstruction": _shape(8, 8)}
    check_losses_of_network(LOSS, Outputs(**fitting), size=(8, 8))
    spec = changes.pop("spec", LOSS)
    with pytest.raises(InputError, match=message):
        check_losses_of_network(spec, Outputs(**{**fitting, **changes}), size=(8, 8))


def test_crops_about_labels_that_no_loss_reads_are_refused():
    check_losses_of_images(LOSS, foreground_oversampling=0.0)
    with pytest.raises(InputError, match=r"found 0\.5, expected 0: no loss reads"):
        check_losses_of_images(LOSS, foreground_oversampling=0.5)


def test_clusters_that_do_not_fit_are_refused(shared):
    with pytest.raises(InputError, match="found 3; expected None where a loss"):
        create_network(_config(shared, **{"model.clusters": 3}), axis_name=None)
