"""Tests slices in one folder per patient, as in the LGG set on Kaggle."""

import nibabel
import numpy as np
import pytest
import tifffile

from unet_jax.data.folder.open import open_folder
from unet_jax.data.folder.options import FolderOptions
from unet_jax.errors import InputError

PATIENTS = ("TCGA_CS_4941_19960909", "TCGA_DU_7014_19860618", "TCGA_HT_8105_19980826")


def _slice(patient, number):
    """Pixels of one slice: each says which patient and slice it is."""
    rng = np.random.default_rng([len(patient), sum(map(ord, patient)), number])
    image = rng.integers(0, 256, (24, 20, 3)).astype(np.uint8)
    mask = np.zeros((24, 20), np.uint8)
    if number % 3:
        mask[5 : 8 + number % 5, 6:12] = 255
    return image, mask


def _write(root, patient, number, **changed):
    image, mask = _slice(patient, number)
    folder = root / patient
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        folder / f"{patient}_{number}.tif",
        changed.get("image", image),
        photometric="rgb",
    )
    tifffile.imwrite(folder / f"{patient}_{number}_mask.tif", changed.get("mask", mask))


@pytest.fixture
def kaggle_3m(tmp_path):
    """Three patients of 12 slices, with the two files that lie beside them."""
    root = tmp_path / "kaggle_3m"
    for patient in PATIENTS:
        for number in range(1, 13):
            _write(root, patient, number)
    (root / "data.csv").write_text("Patient,RNASeqCluster\n")
    (root / "README.md").write_text("Brain MR images\n")
    return root


def _open(root, **options):
    options = {"stack": True, "class_names": ("background", "lesion"), **options}
    return open_folder(
        FolderOptions(path=str(root), **options),
        seed=0,
        num_threads=2,
        scan_cache=None,
    )


def _problems(root, **options):
    with pytest.raises(InputError) as info:
        _open(root, **options)
    return [*info.value.details] or [str(info.value)]


def _cases(dataset):
    found = {}
    for split in ("train", "validation", "test"):
        source = dataset.source(split)
        found[split] = [source[index] for index in range(len(source))]
    return found


def test_a_patient_is_one_volume_in_the_order_of_its_numbers(kaggle_3m):
    dataset = _open(kaggle_3m)
    cases = _cases(dataset)
    assert {split: len(some) for split, some in cases.items()} == {
        "train": 1,
        "validation": 1,
        "test": 1,
    }
    every = {case.id: case for some in cases.values() for case in some}
    assert sorted(every) == list(PATIENTS)
    for patient, case in every.items():
        assert case.group == patient
        assert case.image.shape == (24, 20, 12, 3)
        assert case.spacing is None
        for place in range(12):
            # 10 is the tenth slice, not the second.
            image, mask = _slice(patient, place + 1)
            np.testing.assert_array_equal(case.image[:, :, place], image)
            np.testing.assert_array_equal(case.label[:, :, place], mask // 255)
    assert "the slices of a folder are one volume" in dataset.notes[0]
    assert "gaps" not in dataset.notes[0]


def test_a_spacing_that_the_files_do_not_say_is_given(kaggle_3m):
    case = _cases(_open(kaggle_3m, known_spacing=(0.9, 0.9, 5.0)))["test"][0]
    assert case.spacing == (0.9, 0.9, 5.0)
    (problem,) = _problems(kaggle_3m, known_spacing=(1.0, 1.0))
    assert "data.known_spacing is (1.0, 1.0); expected 3 sizes above 0 in mm" in problem


def test_the_axis_of_the_slices_is_the_config_s(kaggle_3m):
    case = _cases(_open(kaggle_3m, slice_axis=0))["test"][0]
    assert case.image.shape == (12, 24, 20, 3)
    np.testing.assert_array_equal(case.image[3], _slice(case.id, 4)[0])


def test_without_stack_each_slice_is_a_case_and_patients_stay_whole(kaggle_3m):
    cases = _cases(_open(kaggle_3m, stack=False))
    groups = {split: {c.group for c in some} for split, some in cases.items()}
    assert sorted(group for some in groups.values() for group in some) == list(PATIENTS)
    assert all(len(some) == 12 for some in cases.values())


def test_gaps_are_said(kaggle_3m):
    for name in ("_5.tif", "_5_mask.tif"):
        (kaggle_3m / PATIENTS[1] / f"{PATIENTS[1]}{name}").unlink()
    dataset = _open(kaggle_3m)
    assert "(1 of 3 have gaps in their numbers)" in dataset.notes[0]


def test_every_problem_names_its_file(kaggle_3m):
    first, second, third = (kaggle_3m / patient for patient in PATIENTS)
    (first / f"{PATIENTS[0]}_4_mask.tif").unlink()
    _write(kaggle_3m, PATIENTS[1], 2, image=np.zeros((9, 20, 3), np.uint8))
    path = third / f"{PATIENTS[2]}_7_mask.tif"
    path.write_bytes(path.read_bytes()[:100])
    text = "\n".join(_problems(kaggle_3m))
    assert f"{PATIENTS[0]}_4.tif: no mask has its name" in text
    assert (
        f"{PATIENTS[1]}_2.tif: size (9, 20, 3); expected (24, 20, 3) as the other "
        "slices (with channels)"
    ) in text
    assert f"{PATIENTS[2]}_7_mask.tif: cannot be read" in text
    assert str(second) in text


def test_a_mask_of_another_size_is_refused(kaggle_3m):
    _write(kaggle_3m, PATIENTS[0], 3, mask=np.zeros((24, 21), np.uint8))
    (problem,) = _problems(kaggle_3m)
    assert "_3_mask.tif: size (24, 21, 1); expected (24, 20, 1)" in problem


def test_a_value_of_no_class_is_found_in_its_slice(kaggle_3m):
    mask = np.zeros((24, 20), np.uint8)
    mask[4, 4] = 9
    _write(kaggle_3m, PATIENTS[1], 7, mask=mask)
    (line,) = _problems(kaggle_3m)
    assert f"{PATIENTS[1]}_7_mask.tif: the label has the values 0, 9, 255" in line


def test_every_bad_slice_is_named(kaggle_3m):
    folder = kaggle_3m / PATIENTS[0]
    for name in ("_4.tif", "_9.tif", "_4_mask.tif"):
        (folder / f"{PATIENTS[0]}{name}").write_bytes(b"")
    lines = _problems(kaggle_3m)
    assert [line.split(":")[0].rpartition("/")[2] for line in lines] == [
        f"{PATIENTS[0]}{name}" for name in ("_4.tif", "_9.tif", "_4_mask.tif")
    ]


def test_a_flat_folder_is_no_volume(kaggle_3m):
    (kaggle_3m / PATIENTS[0] / f"{PATIENTS[0]}_4_mask.tif").write_bytes(b"")
    lines = _problems(kaggle_3m / PATIENTS[0])
    assert len(lines) == 2
    assert "_10.tif, " in lines[0]
    assert "9 more: in no folder; expected the slices of each" in lines[0]
    assert "_4_mask.tif: is empty" in lines[1]


def test_a_slice_needs_a_number_of_its_own(tmp_path):
    _write(tmp_path, "p1", 1)
    for name in ("p1_1", "p1_1_mask"):
        for other in ("p1_01", "flair"):
            path = tmp_path / f"p1/{name}.tif"
            copy = path.with_name(path.name.replace("p1_1", other))
            copy.write_bytes(path.read_bytes())
    mask = _slice("p2", 1)[1]
    mask[0, 0] = 9
    _write(tmp_path, "p2", 1, mask=mask)
    _write(tmp_path, "p3", 1)
    lines = _problems(tmp_path)
    assert len(lines) == 3
    assert "flair.tif: no number in its name" in lines[0]
    assert "slice 1 is also p1_01.tif" in lines[1]
    assert "p2_1_mask.tif: the label has the values 0, 9, 255" in lines[2]


def test_nifti_volumes_are_volumes_already(tmp_path):
    for number in range(3):
        folder = tmp_path / f"p{number}"
        folder.mkdir()
        pixels = np.random.default_rng(number).integers(1, 9, (6, 7, 8), np.uint8)
        nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), folder / "image.nii.gz")
        label = (pixels > 4).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), folder / "label.nii.gz")
    for some in _cases(_open(tmp_path)).values():
        assert [case.image.shape for case in some] == [(6, 7, 8, 1)]
