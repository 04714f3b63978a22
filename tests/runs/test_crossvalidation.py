"""A cross-validation from a folder to its table, and the mean of its folds."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from tests.commands.test_export import check_card, run_alone
from unet_jax.commands.crossvalidate import _KeptLabels, crossvalidate, evaluate_folds
from unet_jax.commands.evaluate_ensemble import evaluate_ensemble
from unet_jax.commands.export import export_run
from unet_jax.commands.predict import predict_files
from unet_jax.commands.train import train_and_evaluate
from unet_jax.configs import base, folder
from unet_jax.data.case import Case
from unet_jax.errors import InputError, Stopped
from unet_jax.evaluation.scorer import evaluate
from unet_jax.experiment.config_file import remembered_folds_config
from unet_jax.experiment.ensemble import load_trained
from unet_jax.experiment.finished import load_run, open_run_data
from unet_jax.inference.postprocess import choose_steps
from unet_jax.inference.risk import Threshold
from unet_jax.runtime.stop import Stop

pytestmark = pytest.mark.usefixtures("one_device", "no_figures")

SMALL = {
    "model.base_features": 4,
    "model.max_features": 8,
    "train.patch_size": (16, 16),
    "train.batch_size": 4,
    "train.steps": 30,
    "eval.every_steps": 15,
    "eval.train_images": 2,
    "eval.choose": "last",
    "eval.mirror": False,
    "eval.risk": ("class_1", 0.5),
    "log.every_steps": 15,
    "log.overlays": 0,
    "augment.enabled": False,
    "optimizer.warmup_steps": 2,
    "optimizer.learning_rate": 1e-2,
    "data.folds": 2,
}
FOLDS = ("fold_0", "fold_1")


def _config(path, **changes):
    config = folder.get_config()
    config.data.path = str(path)
    config.update_from_flattened_dict({**SMALL, **changes})
    return config.lock()


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Ten pictures of a bright square on noise."""
    path = tmp_path_factory.mktemp("squares")
    for number in range(10):
        rng = np.random.default_rng(number)
        label = np.zeros((20, 24), np.uint8)
        row, column = rng.integers(2, 12, 2)
        label[row : row + 6, column : column + 6] = 1
        image = np.clip(60 + 120 * label + rng.normal(0, 30, label.shape), 0, 255)
        for name, pixels in (("images", image.astype(np.uint8)), ("masks", label)):
            (path / name).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(path / name / f"{number}.png")
    return path


class _StopIn(Stop):
    """A request to stop, as Ctrl-C makes one, at the third look of a folder's run."""

    code = 130

    def __init__(self, folder):
        self._folder, self._looks = folder, 0

    @property
    def reason(self):
        self._looks += (self._folder / "config.json").exists()
        return "Ctrl-C" if self._looks >= 3 else None


@pytest.fixture(scope="module")
def interrupted(squares, tmp_path_factory):
    """Workdir whose second fold was stopped after two steps."""
    workdir = tmp_path_factory.mktemp("runs") / "cv"
    with pytest.raises(Stopped, match="Ctrl-C: step 2 is saved") as info:
        crossvalidate(_config(squares), workdir, stop=_StopIn(workdir / "fold_1"))
    assert info.value.code == 130
    return workdir


@pytest.fixture(scope="module")
def finished(squares, interrupted):
    """The same workdir, finished; and what was printed."""
    # A file, since capsys is there for one test alone.
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *args, **_: lines.extend(map(str, args)))
        crossvalidate(_config(squares), interrupted)
    (interrupted / "printed.txt").write_text("\n".join(lines))
    return interrupted


def _scores(workdir):
    return json.loads((workdir / "crossvalidation.json").read_text())


@pytest.mark.slow
def test_an_unfinished_cross_validation_is_no_network(interrupted):
    if not (interrupted / "crossvalidation.json").exists():
        with pytest.raises(InputError, match="cross-validation is not finished"):
            load_trained(interrupted)
    assert (interrupted / "fold_0/test_metrics.json").exists()


@pytest.mark.slow
def test_it_goes_on_where_it_was_and_ends_in_a_table(finished):
    printed = (finished / "printed.txt").read_text()
    assert "fold_0 is complete: nothing to do" in printed
    assert "resumed at step 2 of 30" in printed
    table = (finished / "crossvalidation.txt").read_text()
    assert table in printed + "\n"
    results = _scores(finished)
    assert [one["n_cases"] for one in results["folds"]] == [4, 4]
    assert [one["checkpoint_step"] for one in results["folds"]] == [30, 30]
    for row in ("mean of folds", "std of folds", "all cases", "Test split (2 cases)"):
        assert row in table
    assert results["mean"]["dice"] > 0.4  # the square is bright
    assert results["pooled"]["ci95"]["dice"][0] < results["pooled"]["mean"]["dice"]
    assert not list((finished / "out_of_fold").glob("kept*"))
    lines = (finished / "out_of_fold" / "per_case.csv").read_text().splitlines()
    assert len(lines) == 1 + len(results["pooled"]["per_case"])
    assert "fold" in lines[0].split(",")


@pytest.mark.slow
def test_each_case_is_scored_once_by_the_fold_that_did_not_train_on_it(finished):
    results, expected = _scores(finished), {}
    splits = json.loads((finished / "splits_final.json").read_text())
    for number, name in enumerate(FOLDS):
        dataset, run = open_run_data(finished / name), load_run(finished / name)
        source = dataset.source("validation")
        cases = [source[index] for index in range(len(source))]
        train = dataset.fingerprint["train"]["ids"]
        assert not {case.id for case in cases} & set(train)
        assert sorted(splits[number]["val"]) == sorted(case.id for case in cases)
        names = run.config.data.class_names

        def labels_of(image, spacing, run=run):
            labels = np.zeros(image.shape[:-1], np.uint8)

            def watch(place, plane):
                labels[place] = plane.argmax(-1)

            run.predict_fn(image, spacing, watch=watch)
            return labels

        scored = evaluate(labels_of, cases, class_names=names, metrics=("hd95",))
        expected |= {row["id"]: (number, row) for row in scored["per_case"]}
        assert results["folds"][number]["mean"]["dice"] == scored["mean"]["dice"]
    assert len(expected) == 8
    rows = results["pooled"]["per_case"]
    assert sorted(row["id"] for row in rows) == sorted(expected)
    for row in rows:
        number, by_hand = expected[row["id"]]
        assert row["fold"] == number
        assert all(row[key] == by_hand[key] for key in ("dice", "iou", "hd95_px"))
    written = finished / "out_of_fold/predictions"
    assert sorted(path.stem for path in written.iterdir()) == sorted(expected)


@pytest.mark.slow
def test_the_folds_are_one_network(finished, squares, tmp_path):
    run, image = load_trained(finished), squares / "images/0.png"
    pixels = np.asarray(Image.open(image))[..., None]
    found = []
    for each in (*(load_run(finished / name) for name in FOLDS), run):
        found.append(np.zeros((*pixels.shape[:-1], 2)))
        each.predict_fn(pixels, None, watch=found[-1].__setitem__)
    one, two, mean = found
    np.testing.assert_allclose((one + two) / 2, mean, atol=1e-6)
    assert abs(one - two).max() > 0.01
    steps = _scores(finished)["postprocess"]["steps"]
    assert [list(step) for step in run.predict_fn.steps] == steps
    predict_files(finished, input_path=str(image), output_folder=str(tmp_path / "out"))
    found = np.asarray(Image.open(tmp_path / "out/0.png"))
    np.testing.assert_array_equal(found, run.predict(image))


def _indices(path):
    with Image.open(path) as picture:
        return np.asarray(picture), picture.getpalette()[:6]


@pytest.mark.slow
def test_folds_and_a_fold_give_the_label_maps_of_predict(finished, squares, tmp_path):
    image = squares / "images/0.png"
    for number, workdir in enumerate((finished, finished / "fold_0")):
        bundle, out = tmp_path / f"bundle_{number}", tmp_path / f"predicted_{number}"
        export_run(workdir, bundle)
        predict_files(workdir, input_path=str(image), output_folder=str(out))
        made = run_alone(
            bundle, image, "-o", tmp_path, "--probabilities", tmp_path / "p.npy"
        )
        assert made.returncode == 0, made.stderr
        labels, palette = _indices(tmp_path / "0.png")
        expected, colors = _indices(out / "0.png")
        _, probabilities = load_trained(workdir).predict(image, probabilities=True)
        best = np.sort(probabilities, axis=-1)
        sure = best[..., -1] - best[..., -2] > 1e-4
        np.testing.assert_array_equal(labels[sure], expected[sure])
        assert palette == colors
        found = np.load(tmp_path / "p.npy")
        np.testing.assert_allclose(found, probabilities, atol=1e-3)
        members = json.loads((bundle / "bundle.json").read_text())["members"]
        assert [one["model"] for one in members] == (
            ["model_0.onnx", "model_1.onnx"] if number == 0 else ["model.onnx"]
        )
        assert "It expires" in (bundle / "MODEL_CARD.md").read_text()
        assert len(list(bundle.glob("*.stablehlo"))) == len(members)
        check_card((bundle / "MODEL_CARD.md").read_text())
        rows = (out / "classes.csv").read_text().splitlines()
        warned = rows[1].endswith("yes")
        assert ("warning:" in made.stdout) == warned


@pytest.mark.slow
def test_run_py_refuses_in_one_line_what_it_cannot_read(finished, tmp_path):
    bundle = tmp_path / "bundle"
    export_run(finished / "fold_0", bundle)
    Image.new("RGB", (30, 30)).save(tmp_path / "rgb.png")
    (tmp_path / "series").mkdir()
    for given, message in (
        ("series", "DICOM and other formats are for unet_jax"),
        ("none.png", "no such file"),
        ("rgb.png", "found 3 channels; expected 1"),
    ):
        made = run_alone(bundle, tmp_path / given)
        assert made.returncode == 1
        assert message in made.stderr
        assert made.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_test_split_is_that_of_the_mean_and_can_be_scored_again(finished, capsys):
    before = (finished / "test_metrics.json").read_bytes()
    results = _scores(finished)
    assert results["test"]["mean"] == json.loads(before)["mean"]
    evaluate_folds(finished)
    assert (finished / "test_metrics.json").read_bytes() == before
    assert "eval.risk: no threshold is chosen" in capsys.readouterr().out
    one = json.loads((finished / "fold_0/test_metrics.json").read_text())
    both = json.loads(before)
    ids = [{row["id"] for row in each["per_case"]} for each in (one, both)]
    assert ids[0] == ids[1]
    assert both["members"] == list(FOLDS)
    assert both["temperature"] is None  # each validates on what the other learnt
    assert "risk" not in both
    assert one["risk"] == json.loads((finished / "fold_0/risk.json").read_text())
    assert one["risk"]["groups"] == 2  # of four that validate
    threshold = Threshold(1, one["risk"]["threshold"])
    assert load_run(finished / "fold_0").predict_fn.threshold == threshold


@pytest.mark.slow
def test_a_finished_one_is_left_alone_and_another_config_refused(
    finished, squares, capsys
):
    before = (finished / "crossvalidation.json").read_bytes()
    crossvalidate(remembered_folds_config(finished).lock(), finished)
    assert "cv is complete: nothing to do" in capsys.readouterr().out
    assert (finished / "crossvalidation.json").read_bytes() == before
    with pytest.raises(InputError, match="fold_0: its run has seed=0, this config 5"):
        crossvalidate(_config(squares, seed=5), finished)
    with pytest.raises(InputError, match=r"folds have data\.folds=2, this config 4"):
        crossvalidate(_config(squares, **{"data.folds": 4}), finished)
    with pytest.raises(InputError, match=r"data\.fold: found 1, expected -1"):
        crossvalidate(_config(squares, **{"data.fold": 1}), finished)
    with pytest.raises(InputError, match="is the folder of a run"):
        crossvalidate(_config(squares), finished / "fold_0")


@pytest.mark.slow
def test_runs_of_other_lengths_have_a_mean_and_a_fold_that_changed_has_none(
    finished, squares, tmp_path
):
    changes = {"train.steps": 5, "eval.every_steps": 5, "seed": 5, "eval.risk": None}
    train_and_evaluate(_config(squares, **changes), tmp_path / "other")
    members = [finished / "fold_0", tmp_path / "other"]
    scored = evaluate_ensemble(members, output=tmp_path / "seeds")
    ids = {row["id"] for row in scored["per_case"]}
    assert ids == set(
        json.loads((finished / "splits_final.json").read_text())[0]["test"]
    )
    path = finished / "crossvalidation.json"
    content = path.read_text()
    path.write_text(content.replace('"checkpoint_step": 30', '"checkpoint_step": 15'))
    with pytest.raises(InputError, match="has the checkpoint of step 30, and crossval"):
        load_trained(finished)
    (finished / "fold_1").rename(tmp_path / "away")
    path.write_text(content)
    with pytest.raises(InputError, match="fold_1: there is no run of this fold; put"):
        load_trained(finished)
    (tmp_path / "away").rename(finished / "fold_1")
    path.write_text("{}")
    with pytest.raises(InputError, match=r"crossvalidation\.json: cannot be read"):
        load_trained(finished)
    path.write_text(content)


def test_a_set_with_splits_of_its_own_has_no_folds(tmp_path):
    with pytest.raises(InputError, match=r"data\.source: found 'tfds', expected 'fold"):
        crossvalidate(base.get_config(), tmp_path)


def test_kept_labels_choose_and_are_scored_as_those_in_memory(tmp_path):
    label = np.zeros((9, 9), np.int8)
    label[2:7, 2:7] = 1
    kept, pairs, cases = _KeptLabels(tmp_path), [], []
    for number in range(3):
        found = label.astype(np.uint8)
        found[0, number] = 1  # a pixel that no component of the truth has
        case = Case(str(number), label[..., None], label, None, str(number))
        kept.add(case, found)
        pairs.append((found, label))
        cases.append(case)
    steps = kept.chosen_steps(((1,),))
    assert steps == choose_steps(pairs, groups=((1,),)) != ()
    options = {"class_names": ("background", "square"), "metrics": ("hd95",)}
    after = kept.scored_after(steps, options)
    assert after == evaluate(lambda image, spacing: image[..., 0], cases, **options)
    (tmp_path / "partly").mkdir()
    partly = _KeptLabels(tmp_path / "partly")
    partly.add(dataclasses.replace(cases[0], labelled_classes=(0,)), pairs[0][0])
    assert partly.chosen_steps(((1,),)) == ()
