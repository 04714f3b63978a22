"""Every method and the network in one table; only the scorer sees test labels."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from PIL import Image

from unet_jax.classical.methods import METHODS, fit_method
from unet_jax.classical.samples import Sample
from unet_jax.commands import compare
from unet_jax.commands.train import train_and_evaluate
from unet_jax.configs import folder, smoke
from unet_jax.data.case import Case
from unet_jax.errors import InputError
from unet_jax.method import Method

SCORERS = ("evaluation/scorer.py",)


class _Guarded:
    """A case whose label raises when anything but the scorer reads it."""

    def __init__(self, case):
        self._case = case

    def __getattr__(self, name):
        if name == "label":
            reader = sys._getframe(1).f_code.co_filename
            assert reader.endswith(SCORERS), f"{reader} reads a test label"
        return getattr(self._case, name)


def _case(seed, id="one"):
    rng = np.random.default_rng(seed)
    label = np.zeros((24, 28), np.int64)
    label[6:18, 5:15] = 1
    image = (60 + 120 * label + rng.normal(0, 3, label.shape)).astype(np.uint8)
    return Case(id, image[..., None], label, None, id)


def _config():
    config = smoke.get_config()
    config.data.class_names = ("background", "box")
    config.data.class_colors = ((0, 0, 0), (255, 0, 0))
    return config


def test_a_label_that_other_code_reads_raises():
    guarded = _Guarded(_case(0))
    assert guarded.id == "one"
    with pytest.raises(AssertionError, match="reads a test label"):
        _ = guarded.label


@pytest.mark.parametrize("name", METHODS)
def test_no_method_reads_a_test_label(name):
    train, test = _case(0), [_Guarded(_case(1)), _Guarded(_case(2, "two"))]
    fitted = fit_method(name, [Sample(train.image, train.label)], num_classes=2)
    ready = compare.Ready(fitted.predict_fn, fitted.chosen)
    row, picture = compare._score(ready, _config(), {"test": test})
    assert row["mean"]["dice"] > 0.9
    assert picture.shape == (24, 28)
    assert (row["n_cases"], row["block"]) == (2, compare.FITTED)
    assert row["ms_per_image"] > 0


def test_a_method_that_wants_the_reference_is_given_it():
    seen = []

    def predict_fn(image, spacing, *, reference):
        seen.append(reference)
        return np.zeros(image.shape[:-1], np.uint8)

    case = dataclasses.replace(_case(0), reference=((1.0, 2.0),))
    method = Method(predict_fn, wants_reference=True)
    compare._score(compare.Ready(method, {}), _config(), {"test": [case]})
    assert set(seen) == {((1.0, 2.0),)}


def test_names_are_checked_and_all_are_taken_where_none_is_given():
    everything = (*METHODS, *compare.UNSUPERVISED, compare.NETWORK)
    assert compare.method_names(()) == everything
    assert compare.method_names(("otsu", "network")) == ("otsu", "network")
    with pytest.raises(InputError, match="unknown method 'otsoo'; expected any of"):
        compare.method_names(("otsu", "otsoo"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((("otsu", {"bins": 3}),), "otsu has no parameter 'bins'"),
        ((("otsoo", {}),), "unknown method 'otsoo'"),
        (("otsu",), "compare.parameters: found .* expected pairs of a method and"),
    ],
)
def test_given_parameters_are_refused_before_any_work(given, message):
    config = _config()
    config.compare.parameters = given
    case = _case(0)
    with pytest.raises(InputError, match=message):
        compare._check_given(config, [Sample(case.image, case.label)])


@pytest.fixture(scope="module", autouse=True)
def little_to_learn_from(one_device, no_figures):
    """Let feature clustering learn from two small tiles: to save time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unet_jax.unsupervised.feature_clustering.TILES", 2)
        patch.setattr("unet_jax.unsupervised.feature_clustering.TILE", 32)
        yield


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A finished run on pictures of boxes."""
    root = tmp_path_factory.mktemp("compare")
    for name in ("images", "masks"):
        (root / "data" / name).mkdir(parents=True)
    for index in range(12):
        case = _case(index)
        Image.fromarray(case.image[..., 0]).save(root / f"data/images/{index}.png")
        mask = Image.fromarray((255 * case.label).astype(np.uint8))
        mask.save(root / f"data/masks/{index}.png")
    config = folder.get_config()
    config.update_from_flattened_dict(
        {
            "augment.enabled": False,
            "data.path": str(root / "data"),
            "data.test_fraction": 0.5,
            "model.base_features": 4,
            "model.max_features": 8,
            "train.max_patch": 32,
            "train.steps": 4,
            "eval.every_steps": 4,
            "log.every_steps": 2,
            "eval.mirror": False,
            "eval.train_images": 2,
            "eval.distance": False,
            "optimizer.warmup_steps": 1,
            "compare.w_net_steps": 4,
            "compare.methods": ("manual_threshold", "otsu", "kmeans", "network"),
            "compare.parameters": (("manual_threshold", {"thresholds": (60,)}),),
        }
    )
    train_and_evaluate(config.lock(), root / "run")
    return root / "run"


@pytest.mark.slow
def test_the_table_has_every_method_and_a_failing_one_stops_no_other(
    workdir, monkeypatch, capsys
):
    real = compare.fit_method

    def failing(name, *arguments, **options):
        if name == "otsu":
            raise RuntimeError("the disc\nis full")
        return real(name, *arguments, **options)

    monkeypatch.setattr(compare, "fit_method", failing)
    results = compare.compare_methods(workdir)
    assert results == json.loads((workdir / "comparison.json").read_text())
    rows = {row["method"]: row for row in results["methods"]}
    assert list(rows) == ["manual_threshold", "otsu", "kmeans", "network"]
    assert rows["otsu"]["failed"] == "RuntimeError: the disc is full"
    assert rows["manual_threshold"]["chosen"]["thresholds"] == [60.0]
    assert rows["kmeans"]["mean"]["dice"] > 0.99
    assert rows["kmeans"]["mean"]["dice"] > rows["manual_threshold"]["mean"]["dice"]
    assert len(rows["kmeans"]["ci95"]["dice"]) == 2
    printed = capsys.readouterr().out
    for line in ("[1/4] manual_threshold ...", "[2/4] otsu FAILED: RuntimeError"):
        assert line in printed
    lines = (workdir / "comparison_per_case.csv").read_text().splitlines()
    rows = [len(one["per_case"]) for one in results["methods"] if "failed" not in one]
    assert len(lines) == 1 + sum(rows)
    assert lines[0].startswith("method,id,group,class,dice,iou")
    text = (workdir / "comparison.md").read_text()
    assert "otsu failed: RuntimeError: the disc is full" in text
    assert text.index("| kmeans |") < text.index("| manual_threshold |")
    for name in ("comparison", "histogram"):
        with Image.open(workdir / "figures" / f"{name}.png") as picture:
            assert np.asarray(picture.convert("RGB")).std() > 5


@pytest.mark.slow
def test_the_network_of_the_table_is_the_one_that_was_scored(workdir):
    scored = json.loads((workdir / "test_metrics.json").read_text())
    results = compare.compare_methods(workdir)
    (network,) = [row for row in results["methods"] if row["method"] == "network"]
    assert network["mean"] == scored["mean"]
    assert network["per_case"] == scored["per_case"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["network", "w_net", "feature_clustering"])
def test_no_network_reads_a_test_label(workdir, name):
    # The oracle-matched row is left out: it reads test labels, and its block says so.
    run = compare.load_run(workdir)
    dataset = compare.open_run_data(workdir)
    train, test = dataset.source("train"), dataset.source("test")
    ready = compare._make(name, run, compare._samples(train), workdir, None)
    guarded = [_Guarded(test[index]) for index in range(2)]
    row, _ = compare._score(ready, run.config, {"train": train, "test": guarded})
    assert (row["n_cases"], row["block"]) == (2, compare.FITTED)


@pytest.mark.slow
def test_networks_without_labels_are_rows_and_matched_ones_have_their_own_block(
    workdir, monkeypatch
):
    monkeypatch.setattr(compare, "method_names", lambda wanted: compare.UNSUPERVISED)
    results = compare.compare_methods(workdir)
    rows = {row["method"]: row for row in results["methods"]}
    assert not [row for row in rows.values() if "failed" in row]
    assert 1 <= rows["w_net"]["chosen"]["checkpoint_step"] <= 4
    assert (workdir / "compare" / "w_net" / "clusters.json").exists()
    assert rows["feature_clustering"]["block"] == compare.FITTED
    assert rows["feature_clustering_matched"]["block"] == compare.MATCHED
    assert rows["feature_clustering_matched"]["mean"]["dice"] > 0.8
    assert "### Oracle-matched" in (workdir / "comparison.md").read_text()
