"""The embedded set agrees with the template in nilearn."""

import itertools
import subprocess
import sys

import nibabel
import numpy as np
import pytest

from unet_jax.data.tfds.source import TfdsSource, prepare
from unet_jax.datasets.mni152_tissue import mni152_tissue_dataset_builder as mni152
from unet_jax.errors import InputError

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    prepare("mni152_tissue", folder)
    return folder


@pytest.fixture(scope="module")
def slices(data_dir):
    """Every record of every split: index and position by the tfds API itself."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(data_dir / "mni152_tissue" / "1.0.0")
    return {split: list(builder.as_data_source(split)) for split in SPLITS}


def _volumes(data_dir, split):
    return TfdsSource(
        name="mni152_tissue",
        split=split,
        data_dir=data_dir,
        num_classes=4,
        volume_key="volume",
        slice_index_key="slice_index",
        spacing_key="spacing",
    )


def _nilearn_file(kind):
    import importlib.resources

    name = f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    return importlib.resources.files("nilearn") / "datasets" / "data" / name


def test_slabs_are_the_fixed_millimetres(slices):
    positions = {
        split: [row["position_mm"] for row in rows] for split, rows in slices.items()
    }
    assert positions == {
        "train": [*range(-63, -13), *range(38, 79)],
        "validation": [*range(-9, 8)],
        "test": [*range(12, 34)],
    }
    for rows in slices.values():
        assert [row["slice_index"] for row in rows] == [
            int(row["position_mm"]) + 72 for row in rows
        ]


def test_slabs_are_at_least_4_mm_apart(slices):
    positions = {
        split: np.array([row["position_mm"] for row in rows])
        for split, rows in slices.items()
    }
    for one, other in itertools.combinations(SPLITS, 2):
        gaps = np.abs(positions[one][:, None] - positions[other][None, :])
        assert gaps.min() >= 4


def test_training_has_no_voxel_of_the_other_slabs(tmp_path):
    """What the others add are mean and standard deviation of the scan, as in use."""
    builder = mni152.Mni152Tissue(data_dir=tmp_path)
    template = mni152.load_template("t1")
    other = template.copy()
    training = [
        position - mni152._ORIGIN_MM[2]
        for first, last in mni152.SLABS_MM["train"]
        for position in range(first, last + 1)
    ]
    held_out = np.ones(template.shape[2], bool)
    held_out[training] = False
    voxels = other[..., held_out]
    # Other places, the same intensities: the statistics of the scan stay.
    other[..., held_out] = (
        np.random.default_rng(0).permuted(voxels.ravel()).reshape(voxels.shape)
    )
    assert (other != template).mean() > 0.05

    def records(image):
        label = (image > 100).astype(np.uint8)
        rows = builder._generate_examples(image, label, mni152.SLABS_MM["train"])
        return [row for _, row in rows]

    for one, two in zip(records(template), records(other), strict=True):
        for key, value in one.items():
            np.testing.assert_array_equal(value, two[key], strict=True)


def test_test_slab_is_at_least_15_percent_of_all_labelled_slices(slices):
    label = mni152.tissue_labels(
        t1=mni152.load_template("t1"),
        grey=mni152.load_template("gm"),
        white=mni152.load_template("wm"),
    )
    labelled = np.flatnonzero(np.count_nonzero(label, axis=(0, 1)) > 1000)
    assert (labelled[0], labelled[-1], len(labelled)) == (9, 150, 142)
    assert len(slices["test"]) >= 0.15 * len(labelled)


@pytest.mark.parametrize("split", SPLITS)
def test_every_class_in_each_slab_and_every_slice_labelled(slices, split):
    counts = np.array(
        [np.bincount(row["label"].ravel(), minlength=4) for row in slices[split]]
    )
    assert counts.shape[1] == len(mni152.CLASS_NAMES)
    assert (counts.sum(axis=0) > 10_000).all()
    assert (counts[:, 1:].sum(axis=1) > mni152.MIN_LABELLED_PIXELS).all()


def test_features_of_a_slice(slices):
    row = slices["validation"][3]
    assert row["image"].shape == (197, 233, 1)
    assert row["image"].dtype == np.uint8
    assert row["label"].shape == (197, 233)
    assert row["volume"] == b"mni152"
    assert row["slice_axis"] == 2
    assert row["spacing"].tolist() == [1.0, 1.0, 1.0]
    scan = mni152.load_template("t1")
    assert row["volume_mean"] == pytest.approx(scan[scan > 0].mean(), rel=1e-6)
    assert row["volume_deviation"] == pytest.approx(scan[scan > 0].std(), rel=1e-6)


def test_tissue_labels_rules():
    #            outside, csf, wm wins, tie is grey, 127 is not enough, 128 is
    t1 = np.array([0, 9, 9, 9, 9, 9], np.uint8).reshape(1, 2, 3)
    grey = np.array([0, 0, 60, 128, 127, 128], np.uint8).reshape(1, 2, 3)
    white = np.array([0, 0, 195, 128, 127, 0], np.uint8).reshape(1, 2, 3)
    labels = mni152.tissue_labels(t1=t1, grey=grey, white=white)
    assert labels.ravel().tolist() == [0, 1, 3, 2, 1, 2]


@pytest.mark.parametrize(
    ("split", "first", "stop"),
    [("train", 9, 59), ("train", 110, 151), ("validation", 63, 80), ("test", 84, 106)],
)
def test_volumes_equal_the_nilearn_arrays(data_dir, split, first, stop):
    volume = nibabel.Nifti1Image.from_filename(_nilearn_file("t1"))
    assert nibabel.aff2axcodes(volume.affine) == ("R", "A", "S")
    t1, grey, white = (
        np.asarray(nibabel.Nifti1Image.from_filename(_nilearn_file(kind)).dataobj)
        for kind in ("t1", "gm", "wm")
    )
    case = next(
        case
        for case in _volumes(data_dir, split)
        if case.id == f"mni152:{first}-{stop - 1}"
    )
    assert case.group == "mni152"
    np.testing.assert_array_equal(case.image[..., 0], t1[:, :, first:stop])
    tissue = (t1 > 0) * 1
    tissue = np.where((grey > 127) & (grey >= white), 2, tissue)
    tissue = np.where((white > 127) & (white > grey), 3, tissue)
    np.testing.assert_array_equal(case.label, tissue[:, :, first:stop])
    assert case.group == "mni152"
    assert case.spacing == (1.0, 1.0, 1.0)


def test_generation_is_deterministic(data_dir, tmp_path):
    prepare("mni152_tissue", tmp_path)
    for split in SPLITS:
        first, second = _volumes(data_dir, split), _volumes(tmp_path, split)
        assert first.fingerprint == second.fingerprint
        np.testing.assert_array_equal(first[0].image, second[0].image)


def test_information_of_the_set(data_dir):
    import tensorflow_datasets as tfds

    info = tfds.builder_from_directory(data_dir / "mni152_tissue" / "1.0.0").info
    assert "no claim about new people" in info.description
    licence = data_dir / "mni152_tissue" / "1.0.0" / "LICENSE"
    assert "Copyright (C) 1993-2004 Louis Collins" in licence.read_text()
    assert "fonov2011unbiased" in info.citation


_WITHOUT_NETWORK = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError(f"network: {args}")
socket.socket.connect = refuse
socket.create_connection = refuse
socket.getaddrinfo = refuse
from unet_jax.data.tfds.source import TfdsSource
assert "tensorflow_datasets" not in sys.modules
source = TfdsSource(name="mni152_tissue", split="test", data_dir=sys.argv[1],
                    num_classes=4, volume_key="volume", slice_index_key="slice_index",
                    spacing_key="spacing")
print(source[0].image.shape, source.fingerprint["records"])
for heavy in ("tensorflow", "nilearn", "sklearn"):
    assert heavy not in sys.modules, heavy
"""


def test_no_tensorflow_no_network_and_one_line_on_the_terminal(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _WITHOUT_NETWORK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said, answer = done.stdout.splitlines()
    assert said.startswith(f"preparing mni152_tissue in {tmp_path}")
    assert answer == "(197, 233, 22, 1) 22"


def _fake_nilearn(monkeypatch, folder):
    """Let the package search find a nilearn that the test has written."""
    (folder / "nilearn" / "datasets" / "data").mkdir(parents=True)
    (folder / "nilearn" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "nilearn", raising=False)
    return folder / "nilearn" / "datasets" / "data" / _nilearn_file("t1").name


def test_missing_template_is_refused(monkeypatch, tmp_path):
    path = _fake_nilearn(monkeypatch, tmp_path / "packages")
    with pytest.raises(InputError, match=r"cannot be read .*force-reinstall") as error:
        prepare("mni152_tissue", tmp_path / "data")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("stop", [0, 30, 100_000])
def test_truncated_template_is_refused(monkeypatch, tmp_path, stop):
    original = _nilearn_file("t1").read_bytes()
    _fake_nilearn(monkeypatch, tmp_path).write_bytes(original[:stop])
    with pytest.raises(InputError, match="cannot be read"):
        mni152.load_template("t1")


def test_another_template_is_refused(monkeypatch, tmp_path):
    path = _fake_nilearn(monkeypatch, tmp_path)
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.eye(4)), path)
    with pytest.raises(InputError, match=r"shape \(4, 5, 6\).*expected \(197, 233"):
        mni152.load_template("t1")
