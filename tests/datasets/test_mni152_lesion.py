"""The labels of synthetic lesions agree with the implanted lesions."""

import numpy as np
import pytest
from scipy import ndimage

from unet_jax.data.tfds.source import TfdsSource, prepare
from unet_jax.datasets.mni152_lesion import implant as lesions
from unet_jax.datasets.mni152_lesion import mni152_lesion_dataset_builder as builder
from unet_jax.datasets.mni152_tissue.mni152_tissue_dataset_builder import load_template

SPACING = (1.0, 1.0, 2.0)


def _rng(seed):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def ball():
    """A brain of one tissue, 100, surrounded by zeros."""
    x, y, z = np.indices((90, 90, 30))
    inside = (x - 45) ** 2 + (y - 45) ** 2 + (2 * (z - 15)) ** 2 < 42**2
    return np.where(inside, 100, 0).astype(np.float32)


@pytest.fixture(scope="module")
def implanted(ball):
    return [
        lesions.implant(ball, rng=_rng(s), count=4, spacing=SPACING) for s in range(8)
    ]


def test_the_label_is_where_the_image_changed_most(ball, implanted):
    for image, label, found in implanted:
        change = np.abs(image - ball)
        assert change[label].min() > 4
        # Beyond the graded edge the image hardly changed.
        far = ~ndimage.binary_dilation(label, iterations=5)
        assert change[far].max() < 1
        assert (image[ball == 0] == 0).all()
        assert (label & (ball == 0)).sum() == 0
        assert label.sum() == sum(one.voxels for one in found)


def test_lesions_are_apart_and_counted(implanted):
    for _, label, found in implanted:
        count = ndimage.label(label, np.ones((3, 3, 3)))[1]
        # At the rim of the brain a lesion may be cut in two.
        assert len(found) <= count <= len(found) + 1
        assert 1 <= len(found) <= 4


def test_sizes_and_contrasts_are_of_many_kinds(ball, implanted):
    found = [one for _, _, some in implanted for one in some]
    assert min(one.voxels for one in found) < 200 < 1500 < max(o.voxels for o in found)
    assert {one.contrast > 0 for one in found} == {True, False}
    for image, label, some in implanted:
        if len({one.contrast > 0 for one in some}) == 1:
            change = (image - ball)[label].mean()
            assert (change > 0) == (some[0].contrast > 0)


def test_edges_are_graded(ball):
    """Some voxels around the outline are neither tissue nor lesion."""
    image, label, found = lesions.implant(ball, rng=_rng(3), count=1, spacing=SPACING)
    fraction = (image - ball) / (100 * found[0].contrast)
    between = (fraction > 0.2) & (fraction < 0.7)
    rim = ndimage.binary_dilation(label, iterations=2) & ~ndimage.binary_erosion(
        label, iterations=2
    )
    assert between.sum() > 20
    assert between[rim].sum() > 0.8 * between.sum()


def test_smooth_noise_is_standard_and_smooth():
    noise = lesions.smooth_noise((60, 70, 20), rng=_rng(0), sigma=(8, 8, 4))
    assert noise.shape == (60, 70, 20)
    assert abs(noise.mean()) < 1e-3
    assert noise.std() == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(noise, axis=0)).mean() < 0.25


def test_deformed_without_change_is_the_slab():
    class Still:
        """A random generator that draws no change."""

        def random(self):
            return 1.0

        def uniform(self, low, high, size):
            return np.full(size, (low + high) / 2)

        def normal(self, size):
            return np.zeros(size)

    volume = _rng(1).random((20, 24, 30)).astype(np.float32)
    slab = lesions.deformed(volume, rng=Still(), first=4, count=5, step=3)
    np.testing.assert_allclose(slab, volume[:, :, 4:19:3], atol=1e-4)


@pytest.mark.slow
def test_a_subject_depends_only_on_its_number():
    template = load_template("t1")
    first, again, other = (builder.make_subject(template, n) for n in (3, 3, 4))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).mean() > 0.1
    image, label, count = first
    assert image.dtype == label.dtype == np.uint8
    assert image.shape == (*template.shape[:2], builder.SLICES)
    assert image.max() < 255, "nothing is cut off"
    assert 1 <= count <= builder.MOST_LESIONS
    assert set(np.unique(label)) == {0, 1}
    assert (image[label == 1] > 0).all()


def test_the_description_says_synthetic():
    assert builder._DESCRIPTION.startswith("SYNTHETIC")
    assert "nothing about patients" in builder._DESCRIPTION.replace("\n", " ")


@pytest.mark.slow
def test_every_subject_is_a_group(monkeypatch, tmp_path):
    monkeypatch.setattr(builder, "SUBJECTS", {"train": 2, "validation": 1, "test": 1})
    monkeypatch.setattr(builder, "SLICES", 6)
    prepare("mni152_lesion", tmp_path)
    groups = {}
    for split in ("train", "validation", "test"):
        source = TfdsSource(
            name="mni152_lesion",
            split=split,
            data_dir=tmp_path,
            num_classes=2,
            volume_key="volume",
            slice_index_key="slice_index",
            spacing_key="spacing",
        )
        cases = [source[index] for index in range(len(source))]
        groups[split] = [case.group for case in cases]
        for case in cases:
            assert case.id == f"{case.group}:0-5"
            assert case.spacing == SPACING
            image, label, _ = builder.make_subject(
                load_template("t1"), int(case.group.removeprefix("synthetic"))
            )
            np.testing.assert_array_equal(case.image[..., 0], image)
            np.testing.assert_array_equal(case.label, label)
    assert groups == {
        "train": ["synthetic00", "synthetic01"],
        "validation": ["synthetic02"],
        "test": ["synthetic03"],
    }
