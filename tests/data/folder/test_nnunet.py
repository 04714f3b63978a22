"""Tests data sets in the layout of nnU-Net and of the Decathlon."""

import json
import re

import nibabel
import numpy as np
import pytest

from tests.data.folder.folders import (
    AFFINE,
    ids_of,
    open_set,
    problems_of,
    rng,
    write_pixels,
)
from unet_jax.data.folder.new_images import find_new_images
from unet_jax.data.folder.options import ReadOptions

LABELS = {"background": 0, "organ": 1, "tumour": 2}


def raw_set(
    folder,
    *,
    ending=".png",
    labels=LABELS,
    channels=("T1",),
    size=(6, 7),
    values=(0, 1, 2),
    count=5,
    part="Tr",
    **entries,
):
    """Write a raw data set of nnU-Net; the masks hold the given values."""
    for number in range(count):
        name = f"case_{number:03d}"
        for channel in range(len(channels)):
            draw = rng([number, channel, part == "Ts"])
            pixels = draw.integers(0, 255, size).astype(np.uint8)
            file = folder / f"images{part}/{name}_{channel:04d}{ending}"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_pixels(file, pixels)
        label = np.resize(
            np.array(values, np.uint8), size[: 2 if ending == ".png" else 3]
        )
        file = folder / f"labels{part}/{name}{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_pixels(file, label)
    content = {
        "channel_names": {str(i): name for i, name in enumerate(channels)},
        "labels": labels,
        "numTraining": count,
        "file_ending": ending,
        "overwrite_image_reader_writer": "NaturalImage2DIO",
    }
    (folder / "dataset.json").write_text(json.dumps(content | entries))
    return folder


def test_a_raw_set_has_its_names_channels_and_normalisation(tmp_path):
    size = (6, 7, 3)
    channels = ("CT", "CT")
    raw_set(tmp_path, ending=".nii.gz", channels=channels, size=size)
    (tmp_path / "imagesTr/._case_000_0000.nii.gz").write_bytes(b"resource fork")
    data = open_set(tmp_path)
    assert [case.id for case in data.traits] == [f"case_{n:03d}" for n in range(5)]
    assert {case.channels for case in data.traits} == {2}
    assert data.class_names == ("background", "organ", "tumour")
    assert data.intensity == "percentile"
    assert data.notes[0] == (
        "nnU-Net's layout: 5 cases, images in imagesTr/, masks in labelsTr/"
    )


def test_the_value_called_ignore_is_ignored(tmp_path):
    labels = LABELS | {"ignore": 3}
    data = open_set(raw_set(tmp_path, labels=labels, values=(0, 1, 2, 3)))
    assert data.class_names == ("background", "organ", "tumour")
    assert data.label_map == ((0, 0), (1, 1), (2, 2), (3, -1))
    label = data.source("train")[0].label
    np.testing.assert_array_equal(np.unique(label), [-1, 0, 1, 2])
    several = raw_set(
        tmp_path / "b", labels=LABELS | {"ignore": [3, 9]}, values=(0, 3, 9)
    )
    assert open_set(several).label_map == (*data.label_map, (9, -1))
    names = ("none", "liver", "lesion")  # other names, and still the same values
    assert open_set(tmp_path, class_names=names).label_map == data.label_map


REGIONS = {"background": 0, "whole": [1, 2], "tumour": 2}


def test_regions_are_those_of_the_set_in_the_order_of_writing(tmp_path):
    raw_set(tmp_path, labels=REGIONS, regions_class_order=[1, 2])
    data = open_set(tmp_path)
    assert data.class_names == ("background", "value_1", "tumour")
    assert data.regions == (("whole", (1, 2), 1), ("tumour", (2,), 2))
    assert "regions: whole, tumour, as regions_class_order writes" in data.notes[0]


def test_regions_of_values_with_gaps_have_the_classes_of_these_values(tmp_path):
    labels = {"background": 0, "whole": [1, 2, 4], "tumour": [4], "ignore": 5}
    values = (0, 1, 2, 4, 5)
    raw_set(tmp_path, labels=labels, values=values, regions_class_order=[1, 4])
    data = open_set(tmp_path)
    assert data.label_map == ((0, 0), (1, 1), (2, 2), (4, 3), (5, -1))
    assert data.regions == (("whole", (1, 2, 3), 1), ("tumour", (3,), 3))
    # A label map of the user's own may have other classes.
    own = ((0, 0), ((1, 2), 1), (4, 2), (5, -1))
    assert open_set(tmp_path, label_map=own, class_names=("b", "x", "y")).regions == ()


def test_regions_without_their_order_are_classes_and_a_wrong_order_is_refused(tmp_path):
    data = open_set(raw_set(tmp_path, labels=REGIONS))
    assert data.regions == ()
    assert "has no regions_class_order; each value is a class" in data.notes[0]
    for order in ([1], [1, 7], 3):
        raw_set(tmp_path, labels=REGIONS, regions_class_order=order)
        problem = "regions_class_order is .*; expected one of the values of labels for"
        assert re.search(problem, problems_of(tmp_path)[0])


def test_a_class_that_the_set_states_may_be_absent(tmp_path):
    data = open_set(raw_set(tmp_path, labels=LABELS | {"rare": 3}, numTraining=6))
    assert data.class_names[-1] == "rare"
    assert "WARNING: class 3 (rare): no training case has it" in data.notes
    assert "WARNING: dataset.json states 6 training cases" in data.notes[0]


def test_a_decathlon_task_as_it_is_downloaded(tmp_path):
    for number in range(4):
        for part, shape in (("images", (5, 6, 4, 2)), ("labels", (5, 6, 4))):
            file = tmp_path / f"{part}Tr/BRATS_00{number}.nii.gz"
            file.parent.mkdir(exist_ok=True)
            high = 2 if part == "labels" else 200
            pixels = rng(number).integers(0, high, shape).astype(np.float32)
            nibabel.save(nibabel.Nifti1Image(pixels, AFFINE), file)
            file.with_name(f"._{file.name}").write_bytes(b"resource fork")
    entries = [
        {"image": f"./imagesTr/BRATS_00{n}.nii.gz", "label": f"./labelsTr/BRATS_00{n}"}
        for n in range(4)
    ]
    content = {
        "modality": {"0": "FLAIR", "1": "CT"},
        "labels": {"0": "background", "1": "edema"},
        "numTraining": 4,
        "training": entries,
        "test": ["./imagesTs/BRATS_009.nii.gz"],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    data = open_set(tmp_path)
    assert data.class_names == ("background", "edema")
    assert {case.channels for case in data.traits} == {2}
    assert data.intensity is None
    assert data.channel_names == ("FLAIR", "CT")
    assert "states several normalisations (FLAIR, CT)" in data.notes[0]


def test_folds_beside_the_set_are_taken(tmp_path):
    raw_set(tmp_path / "set")
    ids = [f"case_{n:03d}" for n in range(5)]
    folds = [{"train": ids[:3], "val": ids[3:]}, {"train": ids[2:], "val": ids[:2]}]
    (tmp_path / "set/splits_final.json").write_text(json.dumps(folds))
    assert ids_of(open_set(tmp_path / "set"), "validation") == ids[3:]
    assert ids_of(open_set(tmp_path / "set", fold=1), "validation") == ids[:2]
    (tmp_path / "preprocessed").mkdir()
    moved = tmp_path / "preprocessed/splits_final.json"
    (tmp_path / "set/splits_final.json").rename(moved)
    data = open_set(tmp_path / "set", splits=str(tmp_path / "preprocessed"), fold=1)
    assert ids_of(data, "train") == ids[2:]


@pytest.mark.parametrize("folds", [True, False])
def test_labelled_test_images_are_the_test_split(tmp_path, folds):
    raw_set(tmp_path, count=2, part="Ts")
    raw_set(tmp_path)
    (tmp_path / "labelsTs/case_001.png").unlink()
    ids = [f"case_{n:03d}" for n in range(5)]
    if folds:
        content = json.dumps([{"train": ids[1:], "val": ids[:1]}])
        (tmp_path / "splits_final.json").write_text(content)
    data = open_set(tmp_path)
    assert ids_of(data, "test") == ["imagesTs/case_000"]
    assert sorted(ids_of(data, "train") + ids_of(data, "validation")) == ids


def test_a_set_may_list_its_files(tmp_path):
    raw_set(tmp_path)
    (tmp_path / "imagesTr").rename(tmp_path / "elsewhere")
    listed = {
        f"p{n}": {
            "images": [f"elsewhere/case_{n:03d}_0000.png"],
            "label": str(tmp_path / f"labelsTr/case_{n:03d}.png"),
        }
        for n in range(3)
    }
    content = json.loads((tmp_path / "dataset.json").read_text())
    content |= {"dataset": listed, "numTraining": 3}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert [case.id for case in open_set(tmp_path).traits] == ["p0", "p1", "p2"]


def test_pages_of_tiff_have_the_spacing_of_the_file_beside_them(tmp_path):
    raw_set(tmp_path, ending=".tif", size=(5, 6, 7))
    for number in range(5):
        for part in ("images", "labels"):
            file = tmp_path / f"{part}Tr/case_{number:03d}.json"
            file.write_text('{"spacing": [3, 0.5, 0.25]}')
    data = open_set(tmp_path)
    assert {case.spacing for case in data.traits} == {(0.5, 0.25, 3.0)}
    assert {case.shape for case in data.traits} == {(6, 7, 5)}
    file = tmp_path / "imagesTr/case_000.json"
    for wrong in ([1, 2], [0, 1, 1], "fine"):
        file.write_text(json.dumps({"spacing": wrong}))
        (line,) = problems_of(tmp_path)
        assert line.startswith(f"{file}: spacing is {wrong!r}; expected three sizes")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"background": 0, "a": "x"}}, "are no classes (invalid literal"),
        ({"labels": {"a": 1}}, "are no classes (no class has the value 0)"),
        ({"file_ending": ".nii.gz"}, "there is no image .nii.gz in"),
        ({"dataset": {"a": {"images": []}}}, "case 'a' of dataset is {'images': []}"),
        ({"channel_names": {"0": "a", "1": "b", "2": "c"}}, "expected 3 (a, b, c)"),
    ],
)
def test_what_contradicts_the_files_is_refused(tmp_path, change, message):
    raw_set(tmp_path, channels=("a", "b"), **change)
    assert message in problems_of(tmp_path)[0]


def test_a_description_that_is_broken_or_of_something_else(tmp_path):
    raw_set(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    assert "dataset.json: is not JSON" in problems_of(tmp_path)[0]
    (tmp_path / "dataset.json").write_text('{"name": "mine"}')
    assert open_set(tmp_path).class_names == ("background", "class_1", "class_2")


def test_a_folder_of_sets_is_refused(tmp_path):
    raw_set(tmp_path / "Dataset001_A")
    raw_set(tmp_path / "Dataset002_B")
    (line,) = problems_of(tmp_path)
    assert "holds the sets Dataset001_A, Dataset002_B; expected one of them" in line


def test_a_picture_of_three_colours_is_one_file(tmp_path):
    raw_set(tmp_path, size=(6, 7, 3), count=2)
    images = find_new_images(tmp_path / "imagesTr", ReadOptions(), channels=3)
    assert [one.path.name for one in images] == ["case_000.png", "case_001.png"]
    assert [len(one.files) for one in images] == [1, 1]
