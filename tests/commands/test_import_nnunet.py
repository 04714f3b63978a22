"""A model that nnU-Net trained becomes a run that predicts what nnU-Net predicts.

`benchmarks/golden_nnunet.py` made the model and the prediction with nnunetv2 2.8.1.
"""

import copy
import json
import pathlib
import re
import shutil
import zipfile

import numpy as np
import pytest

import unet_jax
from unet_jax.commands.evaluate import evaluate_run
from unet_jax.commands.export_nnunet import export_nnunet
from unet_jax.commands.import_nnunet import import_nnunet
from unet_jax.errors import InputError
from unet_jax.experiment.from_nnunet import imported_model
from unet_jax.models.pytorch.read import read_torch_file
from unet_jax.nnunet.model_folder import configuration_of

TRAINED = pathlib.Path(__file__).parents[1] / "nnunet" / "trained"
MODEL = TRAINED / "nnUNetTrainer__nnUNetPlans__3d_fullres"
PLANS, DATASET = (
    json.loads((MODEL / name).read_text()) for name in ("plans.json", "dataset.json")
)
CHECKPOINT = {
    "init_args": {"configuration": "3d_fullres"},
    "inference_allowed_mirroring_axes": (0, 2),
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imported") / "run"
    import_nnunet(MODEL, folder)
    return folder


@pytest.mark.slow
def test_predictions_are_those_of_nnunet(workdir):
    expected = np.load(TRAINED / "expected.npz")
    found, probabilities = unet_jax.load(workdir).predict(
        TRAINED / "case5_0000.nii.gz", probabilities=True
    )
    theirs = expected["probabilities"]
    np.testing.assert_allclose(probabilities, theirs, atol=1e-5)
    # Logits but for a constant of each pixel; the smallest have no digits left.
    clear = theirs > 1e-3
    ours = np.log(probabilities[clear])
    np.testing.assert_allclose(ours, np.log(theirs[clear]), atol=1e-4)
    best = np.sort(theirs, axis=-1)[..., ::-1]
    sure = best[..., 0] - best[..., 1] > 1e-4
    np.testing.assert_array_equal(found[sure], expected["labels"][sure])
    assert np.bincount(found.ravel()).min() > 50  # every class is there
    # As shipped, nnU-Net adds up windows in float16, which has no digits left where
    # the weights are smallest: that changes its own labels in three pixels.
    assert (found != expected["half_labels"]).sum() <= 3


@pytest.mark.parametrize(
    "file", ["trained_slices/case5_0000.nii.gz", "trained_pictures/case5_0000.png"]
)
def test_2d_predictions_are_those_of_nnunet(file, tmp_path):
    """Of the slices of a volume across its second axis, and of a picture."""
    path = TRAINED.parent / file
    import_nnunet(path.parent / "nnUNetTrainer__nnUNetPlans__2d", tmp_path / "run")
    found, probabilities = unet_jax.load(tmp_path / "run").predict(
        path, probabilities=True
    )
    expected = np.load(path.parent / "expected.npz")
    theirs = expected["probabilities"]
    clear = theirs > 1e-3
    ours = np.log(probabilities[clear])
    np.testing.assert_allclose(ours, np.log(theirs[clear]), atol=1e-4)
    best = np.sort(theirs, axis=-1)[..., ::-1]
    sure = best[..., 0] - best[..., 1] > 1e-4
    np.testing.assert_array_equal(found[sure], expected["labels"][sure])
    assert np.bincount(found.ravel()).min() > 50  # every class is there


@pytest.mark.slow
def test_regions_are_those_of_nnunet_and_go_back_to_it(workdir, tmp_path):
    """The same network, whose three channels a description calls regions."""
    model = shutil.copytree(MODEL, tmp_path / MODEL.name)
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "top": 3}
    content = DATASET | {"labels": labels, "regions_class_order": [1, 2, 3]}
    (model / "dataset.json").write_text(json.dumps(content))
    import_nnunet(model, tmp_path / "run")
    run = unet_jax.load(tmp_path / "run")
    found, probabilities = run.predict(
        TRAINED / "case5_0000.nii.gz", probabilities=True
    )
    expected = np.load(TRAINED / "regions.npz")
    theirs = expected["probabilities"]
    np.testing.assert_allclose(probabilities[..., 1:], theirs, atol=1e-5)
    sure = (np.abs(theirs - 0.5) > 1e-4).all(axis=-1)
    np.testing.assert_array_equal(found[sure], expected["labels"][sure])
    assert np.bincount(found.ravel())[1:].min() > 50  # every region is there
    export_nnunet(tmp_path / "run", model, tmp_path / "model")
    ours, first = (
        read_torch_file(folder / "fold_0" / "checkpoint_final.pth")["network_weights"]
        for folder in (tmp_path / "model", MODEL)
    )
    for name in ("decoder.seg_layers.1.weight", "decoder.seg_layers.1.bias"):
        np.testing.assert_array_equal(ours[name], first[name])
    with pytest.raises(InputError, match="has the classes background, organ, tumour"):
        export_nnunet(workdir, model, tmp_path / "other")


def test_a_run_without_data_says_how_to_score_and_how_to_train_on(workdir):
    with pytest.raises(InputError, match=r"To score it, import it again .*init_from"):
        evaluate_run(workdir)


def test_a_run_is_not_replaced(workdir):
    with pytest.raises(InputError, match="holds a run, expected a new folder"):
        import_nnunet(MODEL, workdir)


def test_a_run_goes_back_to_a_model_of_nnunet(workdir, tmp_path):
    export_nnunet(workdir, MODEL, tmp_path / "model")
    ours, theirs = (
        read_torch_file(folder / "fold_0" / "checkpoint_final.pth")
        for folder in (tmp_path / "model", MODEL)
    )
    assert ours["inference_allowed_mirroring_axes"] == (0, 1, 2)
    found, expected = ours["network_weights"], theirs["network_weights"]
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        cancelled = re.search(r"(conv|all_modules\.0)\.bias$", name)
        # The coarsest head has no weight in the loss, and was not imported.
        lost = name.startswith("decoder.seg_layers.0.")
        wanted = np.zeros_like(array) if cancelled or lost else array
        np.testing.assert_array_equal(found[name], wanted)
    assert json.loads((tmp_path / "model" / "plans.json").read_text()) == PLANS
    with pytest.raises(InputError, match="exists, expected a new folder"):
        export_nnunet(workdir, MODEL, tmp_path / "model")


# ---- what plans mean -----------------------------------------------------------------


def test_config_and_preprocessing_have_the_numbers_of_the_plans():
    made = imported_model(PLANS, DATASET, CHECKPOINT)
    # nnU-Net reads (z, y, x), and puts y first: its planes lie far apart.
    assert made.order == (2, 0, 1)
    config = made.config
    assert config.train.patch_size == (16, 8, 16)
    assert config.augment.rotation_degrees_3d == (-30.0, 30.0)
    thin = imported_model(_changed(patch_size=[5, 16, 16]), DATASET, CHECKPOINT).config
    assert thin.augment.rotation_degrees_3d == (-180.0, 180.0)
    assert config.data.class_names == ("background", "organ", "tumour")
    assert config.augment.flip_axes == (0, 1)
    assert config.model.options.strides == ((2, 1, 2), (2, 2, 2))
    found = made.preprocessing
    assert found.spacing == (1.0, 4.0, 1.25)
    assert found.intensity == ("percentile", "zscore_whole")
    assert found.statistics[0] == pytest.approx((52, 201, 110.684303, 30.392547))
    assert type(found).from_dict(found.to_dict()) == found
    assert not made.notes


def _changed(**values):
    plans = copy.deepcopy(PLANS)
    plans["configurations"]["3d_fullres"] |= values
    return plans


def test_a_2d_network_sees_slices_across_the_first_axis():
    arch = copy.deepcopy(PLANS["configurations"]["3d_fullres"]["architecture"])
    arch["arch_kwargs"] |= {
        "kernel_sizes": [[3, 3]] * 3,
        "strides": [[1, 1], [2, 2], [2, 1]],
    }
    plans = _changed(patch_size=[32, 16], spacing=[1.25, 1.0], architecture=arch)
    made = imported_model(plans, DATASET, CHECKPOINT)
    # Slices across y; of their axes (z, x) ours are in the order x, z.
    assert made.preprocessing.slice_axis == 1
    assert made.order == (1, 0)
    assert made.config.train.patch_size == (16, 32)
    assert made.config.model.options.strides == ((2, 2), (1, 2))
    assert made.preprocessing.spacing == (1.0, 4.0, 1.25)


def test_pictures_keep_rows_and_columns():
    plans = _changed(patch_size=[32, 16], spacing=[1.0, 1.0])
    kwargs = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    kwargs |= {"kernel_sizes": [[3, 3]] * 3, "strides": [[1, 1], [2, 2], [2, 1]]}
    plans |= {"image_reader_writer": "NaturalImage2DIO", "transpose_forward": [0, 1, 2]}
    made = imported_model(plans, DATASET, CHECKPOINT)
    assert made.order == (0, 1)
    assert made.preprocessing.spacing is None
    assert made.config.train.patch_size == (32, 16)
    for longest, degrees in ((32, 15.0), (26, 15.0), (24, 180.0), (16, 180.0)):
        plans["configurations"]["3d_fullres"]["patch_size"] = [longest, 16]
        config = imported_model(plans, DATASET, CHECKPOINT).config
        assert config.augment.rotation_degrees_2d == (-degrees, degrees)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"use_mask_for_norm": [True, True]}, ("percentile", "zscore_filled")),
        (
            {"normalization_schemes": ["RGBTo01Normalization", "NoNormalization"]},
            ("rgb", "none"),
        ),
        (
            {"normalization_schemes": ["RescaleTo01Normalization"] * 2},
            ("unit_range", "unit_range"),
        ),
    ],
)
def test_schemes_are_those_of_each_channel(changes, expected):
    made = imported_model(_changed(**changes), DATASET, CHECKPOINT)
    assert made.preprocessing.intensity == expected


def test_another_resampling_is_noted():
    plans = _changed(resampling_fn_data="resample_torch_fornnunet")
    (note,) = imported_model(plans, DATASET, CHECKPOINT).notes
    assert "data are resampled by resample_torch_fornnunet" in note


@pytest.mark.parametrize(
    ("plans", "dataset", "message"),
    [
        (_changed(previous_stage="3d_lowres"), DATASET, "second stage of a cascade"),
        (
            _changed(normalization_schemes=["MyNormalization"] * 2),
            DATASET,
            "a channel is normalised by MyNormalization",
        ),
        (PLANS | {"image_reader_writer": "MyIO"}, DATASET, "images are read by MyIO"),
        ({}, DATASET, "plans.json: found no configuration '3d_fullres'"),
        (
            PLANS,
            DATASET | {"labels": {"background": 0, "whole": [1, 2]}},
            "for regions the entry regions_class_order",
        ),
        (PLANS, DATASET | {"labels": {"background": 0, "a": 2}}, "the values 0, 1, 2"),
        (PLANS, {}, "KeyError 'channel_names'|TypeError"),
    ],
)
def test_models_that_cannot_be_imported_are_refused(plans, dataset, message):
    with pytest.raises(InputError, match=message):
        imported_model(plans, dataset, CHECKPOINT)


def test_a_configuration_inherits():
    plans = {"configurations": {"a": {"x": 1, "y": 2}, "b": {"inherits_from": "a"}}}
    plans["configurations"]["c"] = {"inherits_from": "b", "y": 3}
    assert configuration_of(plans, "c") == {"inherits_from": "b", "x": 1, "y": 3}
    plans["configurations"]["a"]["inherits_from"] = "c"
    with pytest.raises(InputError, match="what it inherits from"):
        configuration_of(plans, "c")


# ---- files of a model ----------------------------------------------------------------


def _imported(path, tmp_path):
    import_nnunet(path, tmp_path / "run")
    return json.loads((tmp_path / "run" / "config.json").read_text())


def _zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_an_exported_zip_is_imported(tmp_path):
    files = {
        f"Dataset001_Made/{MODEL.name}/{one.relative_to(MODEL)}": one.read_bytes()
        for one in MODEL.rglob("*.*")
    }
    record = _imported(_zip(tmp_path / "model.zip", files), tmp_path)
    assert record["preprocessing"]["spacing"] == [1.0, 4.0, 1.25]


def test_a_zip_bomb_is_refused(tmp_path):
    path = _zip(tmp_path / "model.zip", {"a/plans.json": bytes(10**7)})
    with pytest.raises(InputError, match="unpacks to 10000000 bytes"):
        _imported(path, tmp_path)


def test_a_fold_is_named_where_there_are_several(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    shutil.copytree(MODEL / "fold_0", model / "fold_1")
    with pytest.raises(InputError, match=r"found fold_0, fold_1; expected one\. Name"):
        _imported(model, tmp_path)
    assert _imported(model / "fold_1", tmp_path)["dataset"] == {}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("plans.json", None, "found no plans.json; expected the folder"),
        ("plans.json", b"[1]", r"plans.json: cannot be read \(list\)"),
        ("dataset.json", b"{", r"dataset.json: cannot be read"),
        ("fold_0/checkpoint_final.pth", None, "found no fold_"),
        ("fold_0/checkpoint_final.pth", b"x", "cannot be read as a file of PyTorch"),
    ],
)
def test_missing_and_damaged_files_are_named(tmp_path, name, content, message):
    shutil.copytree(MODEL, tmp_path / "model")
    file = tmp_path / "model" / name
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        _imported(tmp_path / "model", tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_nnunet_itself_holds_what_only_it_knows():
    found = read_torch_file(MODEL / "fold_0" / "checkpoint_final.pth")
    assert found["trainer_name"] == "nnUNetTrainer"
    assert str(found["init_args"]["device"].name) == "torch.device"
    assert found["logging"]["mean_fg_dice"][1] > 0
