"""The table of an unseen person, on a small made scan with a known answer."""

import math

import nibabel
import numpy as np
import pytest

from benchmarks import unseen


@pytest.fixture(scope="module")
def scan():
    """Make a head: white matter in grey matter in fluid, bone and skin around them."""
    x, y, z = np.meshgrid(*[np.arange(64) - 31.5] * 3, indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    image = np.select(
        [radius < 12, radius < 16, radius < 19, radius < 24, radius < 28],
        [110.0, 80.0, 30.0, 10.0, 90.0],
    )
    label = np.select([radius < 12, radius < 16], [2, 1]).astype(np.uint8)
    return unseen.Scan(image, label, (1.0, 1.0, 1.0))


def _true(scan, predicted, **options):
    return unseen.score(predicted, scan, stripped=True, seconds=0.0, **options)


def test_the_true_classes_score_one_and_leave_the_background(scan):
    found = _true(scan, np.array([0, 2, 3])[scan.label])
    assert (found.grey, found.inside) == (1.0, 1.0)
    assert (found.grey_near, found.inside_near) == (1.0, 1.0)
    assert (found.beyond, found.background) == (0.0, 0.0)


def test_grey_matter_counts_as_inside_only_when_it_is_deep(scan):
    deep = unseen._distance(scan.label != 2, scan.spacing) > 3
    predicted = np.array([0, 2, 3])[scan.label]
    inner = _true(scan, np.where(deep, 2, predicted))
    assert (inner.grey, inner.inside) == (1.0, 1.0)
    rim = (scan.label == 2) & ~deep
    outer = _true(scan, np.where(rim, 2, predicted))
    assert outer.inside == pytest.approx(
        2 * deep.sum() / (deep.sum() + (scan.label == 2).sum())
    )
    assert outer.grey < 0.9


def test_tissue_far_from_the_label_is_counted_in_the_upper_half_of_its_box(scan):
    everywhere = _true(scan, np.full(scan.label.shape, 2))
    assert everywhere.beyond == everywhere.background == 1.0
    assert everywhere.grey < everywhere.grey_near < 1.0
    lower = np.zeros(scan.label.shape, int)
    lower[:, :, :30] = 2
    assert _true(scan, lower).beyond == 0.0


def test_every_row_of_the_table_is_predicted_on_its_own_grid(scan):
    shapes = {}

    def predict(image, spacing):
        assert np.isfinite(image).all()
        shapes[len(shapes)] = (image.shape, spacing)
        return np.zeros(image.shape, np.uint8)

    found = dict(unseen.rows(scan, predict))
    assert list(found)[:3] == [
        "stripped",
        "skull on",
        "stripped, inverted, 1.3 mm, bias 30 %",
    ]
    assert shapes[2] == ((49, 49, 49), (1.3, 1.3, 1.3))
    assert all(score.grey == score.inside == 0.0 for score in found.values())
    assert math.isnan(found["skull on"].background)


def test_stripping_and_inverting_keep_zeros_outside(scan):
    made = dict(unseen.variants(scan))
    outside = unseen._distance(scan.label > 0, scan.spacing) > 3
    assert not made["stripped"].image[outside].any()
    assert not made["stripped, inverted"].image[outside].any()
    inverted = made["stripped, inverted"].image
    assert inverted[scan.label == 1].min() > inverted[scan.label == 2].max()
    field = unseen.bias((30, 20, 10), 0.3)
    assert 0.7 <= field.min() < 0.75 < 1.25 < field.max() <= 1.3


@pytest.mark.parametrize(("echo", "grey"), [(120, 0.396), (35, 0.851)])
def test_fluid_is_brightest_in_a_spin_echo_and_white_matter_darkest(scan, echo, grey):
    stripped = dict(unseen.variants(scan))["stripped"]
    image = unseen.spin_echo(stripped, echo_ms=echo).image
    fluid, white = image[stripped.image == 30], image[scan.label == 2]
    assert np.ptp(fluid) == np.ptp(white) == 0
    assert fluid[0] > image[scan.label == 1].max() > white[0] > 0
    assert image[scan.label == 1].mean() / fluid[0] == pytest.approx(grey, abs=1e-3)
    assert not image[stripped.image == 0].any()


def test_two_files_become_one_scan_in_ras(tmp_path, scan):
    flipped = np.diag([-1.0, 1.0, 2.0, 1.0])
    for name, array in (("image", scan.image), ("label", scan.label)):
        image = nibabel.Nifti1Image(array[:, :, ::2].astype(np.float32), flipped)
        nibabel.save(image, tmp_path / f"{name}.nii.gz")
    read = unseen.read_scan(tmp_path / "image.nii.gz", tmp_path / "label.nii.gz")
    np.testing.assert_array_equal(read.label, scan.label[::-1, :, ::2])
    assert read.spacing == (1.0, 1.0, 2.0)


def test_the_command_prints_a_row_for_every_variant_of_a_pair(
    tmp_path, scan, monkeypatch, capsys
):
    files = [str(tmp_path / f"{name}.nii.gz") for name in ("image", "label")]
    for file, array in zip(files, scan[:2], strict=True):
        nibabel.save(nibabel.Nifti1Image(array[::2, ::2, ::2], np.eye(4)), file)

    class Run:
        def predict(self, image, *, spacing):
            return (image[..., 0] > 0).astype(np.uint8)

    monkeypatch.setattr(
        unseen.unet_jax, "load", lambda workdir: {"made": Run()}[workdir]
    )
    monkeypatch.setattr("sys.argv", ["unseen", *files, "--workdir=made"])
    unseen.main()
    header, _, *lines = capsys.readouterr().out.splitlines()
    names = [name for name, _ in unseen.variants(scan)]
    assert [line.split(" | ")[0] for line in lines] == [f"| {name}" for name in names]
    assert all(line.count("|") == header.count("|") for line in lines)
    assert lines[names.index("skull on")].split(" | ")[5] == "-"
    assert lines[names.index("stripped")].split(" | ")[5] == "0.00%"
