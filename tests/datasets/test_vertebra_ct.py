"""The CT vertebra agrees with the files of tptbox, real or written by the test."""

import itertools
import sys

import nibabel
import numpy as np
import pytest

from unet_jax.data.tfds.source import TfdsSource, prepare
from unet_jax.datasets.vertebra_ct import vertebra_ct_dataset_builder as vertebra
from unet_jax.errors import InputError

# Posterior, inferior, right at 1.5 mm, as the sample is stored.
AFFINE = np.array(
    [[0, 0, 1.5, -78], [-1.5, 0, 0, -135], [0, -1.5, 0, -34], [0, 0, 0, 1]]
)
IMAGE, MASK = "sub-ct_label-22_ct.nii.gz", "sub-ct_seg-subreg_label-22_msk.nii.gz"


def _package(monkeypatch, folder, image, mask, affine=AFFINE):
    """Let the package search find a TPTBox that would fail if it were imported."""
    data = folder / "TPTBox" / "tests" / "sample_ct"
    data.mkdir(parents=True)
    (folder / "TPTBox" / "__init__.py").write_text("raise ImportError('imported')\n")
    nibabel.save(nibabel.Nifti1Image(image, affine), data / IMAGE)
    nibabel.save(nibabel.Nifti1Image(mask, affine), data / MASK)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "TPTBox", raising=False)
    return data


@pytest.fixture
def drawn():
    """A CT and a mask of the sample's size, with every part in every slice."""
    rng = np.random.default_rng(0)
    image = rng.integers(-1000, 1900, (73, 47, 73)).astype(np.int16)
    mask = np.zeros(image.shape, np.uint8)
    mask[5:60] = rng.integers(41, 51, (55, 47, 73))
    return image, mask


def _source(folder, split):
    return TfdsSource(
        name="vertebra_ct",
        split=split,
        data_dir=folder,
        num_classes=4,
        volume_key="volume",
        slice_index_key="slice_index",
        spacing_key="spacing",
    )


def test_slabs_are_contiguous_with_two_slices_between():
    slabs = sorted(itertools.chain.from_iterable(vertebra.SLABS.values()))
    assert slabs[0][0] == 0
    assert slabs[-1][1] == 46
    for (_, stop), (start, _) in itertools.pairwise(slabs):
        assert start - stop == 3
    train = vertebra.SLABS["train"]
    for start, stop in (*vertebra.SLABS["validation"], *vertebra.SLABS["test"]):
        assert train[0][1] < start < stop < train[1][0]


def test_parts_become_classes():
    mask = np.array([0, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50])
    assert vertebra.part_labels(mask).tolist() == [0, *[1] * 8, 2, 3]
    with pytest.raises(InputError, match=r"values \[40, 51\], expected 0 and 41 to 50"):
        vertebra.part_labels(np.array([0, 40, 51]))


def test_the_set_is_the_package_s_files_in_ras_order(monkeypatch, tmp_path, drawn):
    image, mask = drawn
    folder = _package(monkeypatch, tmp_path / "packages", image, mask)
    prepare("vertebra_ct", tmp_path / "data")
    turned = [
        np.asarray(nibabel.as_closest_canonical(nibabel.load(folder / name)).dataobj)
        for name in (IMAGE, MASK)
    ]
    counts = {"train": 2, "validation": 1, "test": 1}
    for split, slabs in vertebra.SLABS.items():
        source = _source(tmp_path / "data", split)
        assert len(source) == counts[split]
        cases = {source[index].id: source[index] for index in range(len(source))}
        for start, stop in slabs:
            # The array's axis 1 runs down, the volume's axis 2 up.
            first, last = 46 - stop, 46 - start
            case = cases[f"vertebra:{first}-{last}"]
            assert case.spacing == (1.5, 1.5, 1.5)
            cut = (slice(None), slice(None), slice(first, last + 1))
            np.testing.assert_array_equal(case.image[..., 0], turned[0][cut])
            parts = vertebra.part_labels(turned[1])[cut]
            np.testing.assert_array_equal(case.label, parts)


def test_a_missing_package_is_one_line_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"run `pip install --no-deps tptbox`") as info:
        prepare("vertebra_ct", tmp_path)
    assert "\n" not in str(info.value)
    assert not list(tmp_path.rglob("*.array_record*"))


def test_another_or_a_damaged_sample_is_refused(monkeypatch, tmp_path, drawn):
    image, mask = drawn
    folder = _package(monkeypatch, tmp_path, image, mask, np.diag([1.5, 1.5, 1.5, 1]))
    with pytest.raises(InputError, match=r"axes RAS.*expected .*, PIR, 1.5 mm"):
        vertebra.load_sample()
    (folder / IMAGE).write_bytes((folder / IMAGE).read_bytes()[:1000])
    with pytest.raises(InputError, match=r"cannot be read .*force-reinstall tptbox"):
        vertebra.load_sample()
    (folder / IMAGE).unlink()
    with pytest.raises(InputError, match=r"cannot be read .*force-reinstall tptbox"):
        vertebra.load_sample()


def test_the_installed_sample():
    image, label = vertebra.load_sample()
    assert (image.dtype, int(image.min()), int(image.max())) == (np.int16, -1030, 1961)
    assert np.bincount(label.ravel()).tolist() == [214115, 13999, 9714, 12635]
    for slabs in vertebra.SLABS.values():
        for start, stop in slabs:
            counts = np.bincount(label[:, start : stop + 1].ravel(), minlength=4)
            assert (counts > 1000).all()
    # Dense parts are brighter than the core nested in the shell.
    means = [image[label == index].mean() for index in range(4)]
    assert means[1] > means[2] > means[3] > means[0]
