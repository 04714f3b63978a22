"""New files are read as the cases of the run were; outputs lie on their own grids."""

import csv
import json
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import tifffile
from PIL import Image
from scipy import ndimage

from tests.data.files.dicoms import UIDS, write_series
from unet_jax.commands import predict
from unet_jax.commands.predict import _overlay_names
from unet_jax.configs import base
from unet_jax.data.files.read import read_image, read_label
from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import InputError
from unet_jax.experiment.trained_run import TrainedRun
from unet_jax.inference.distance import Distance


class _Bright:
    """Class 1 where the mean of all channels is above a hundred."""

    num_classes = 2

    def __init__(self, channels, votes):
        self.channels = channels
        self.disagrees = votes > 1

    def __call__(self, image, spacing, *, name="image", uncertainty=None, **_):
        if image.shape[-1] != self.channels:
            raise InputError(f"{name}: {image.shape[-1]} channels")
        if uncertainty is not None:
            # Values by which a pixel is known in every axis order.
            uncertainty[..., 0] = image.mean(axis=-1) / 1000
            uncertainty[..., 1:] = 1 - uncertainty[..., :1]
        return (image.mean(axis=-1) > 100).astype(np.uint8)


@pytest.fixture
def segment(monkeypatch, tmp_path):
    """Predict with a run that is a threshold."""

    def of(
        path,
        *,
        channels=1,
        dims=2,
        spacing=None,
        outputs=(),
        channels_=(),
        votes=1,
        **data,
    ):
        config = base.get_config()
        config.data.update(data | {"channels": channels_})
        preprocessing = Preprocessing(
            network_dims=dims,
            slice_axis=2,
            spacing=spacing,
            size=None,
            crop_nonzero=False,
            intensity="zscore",
            channels=channels,
        )
        run = TrainedRun(config, preprocessing, 1, _Bright(channels, votes))
        monkeypatch.setattr(predict, "load_trained", lambda workdir: run)
        out = tmp_path / "out"
        predict.predict_files(
            tmp_path,
            input_path=str(path),
            output_folder=str(out),
            **dict.fromkeys(outputs, True),
        )
        return out

    return of


def _rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def _picture(channels, seed=0):
    shape = (channels, 30, 40)
    return np.random.default_rng(seed).integers(0, 200, shape).astype(np.uint16)


@pytest.mark.parametrize("axes", ["CYX", "cyx"])
def test_the_axes_of_tiff_files_are_those_of_the_run(segment, tmp_path, axes):
    path = tmp_path / "in/a.tif"
    path.parent.mkdir()
    pixels = _picture(4)
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata=None)
    out = segment(path.parent, channels=4, tiff_axes=axes)
    expected = pixels.mean(axis=0) > 100
    np.testing.assert_array_equal(tifffile.imread(out / "a.tif"), expected)


def test_files_of_channels_are_one_image(segment, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 200, (2, 5, 6, 7)).astype(np.int16)
    affine = np.diag([-1.0, 1.0, 3.0, 1.0])
    turned = affine[:, [2, 1, 0, 3]]
    for name in ("c0", "c1"):
        image = nibabel.Nifti1Image(pixels[0], affine)
        nibabel.save(image, folder / f"{name}_0000.nii.gz")
        # The second channel is the same voxels in another order.
        image = nibabel.Nifti1Image(pixels[1].transpose(2, 1, 0), turned)
        nibabel.save(image, folder / f"{name}_0001.nii.gz")
    for path in (folder, folder / "c1_0001.nii.gz"):
        out = segment(path, channels=2, dims=3)
        label = nibabel.load(out / "c1.nii.gz")
        np.testing.assert_array_equal(label.get_fdata(), pixels.mean(axis=0) > 100)
        np.testing.assert_allclose(label.affine, affine)
        assert (out / "c0.nii.gz").exists() == (path == folder)
        shutil.rmtree(out)
    moved = affine.copy()
    moved[2, 3] = 9
    nibabel.save(nibabel.Nifti1Image(pixels[1], moved), folder / "c1_0001.nii.gz")
    with pytest.raises(InputError, match="1 of 2 images not segmented") as info:
        segment(folder, channels=2, dims=3)
    assert "c1_0001.nii.gz: its affine differs from c1_0000" in info.value.details[0]
    (folder / "c1_0001.nii.gz").rename(folder / "c1_0002.nii.gz")
    with pytest.raises(InputError, match=r"channels of c1.nii.gz are c1_0000.+c1_0002"):
        segment(folder, channels=2, dims=3)


def test_frames_of_a_film_are_not_channels(segment, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        frame = np.moveaxis(_picture(3, number), 0, -1).astype(np.uint8)
        Image.fromarray(frame).save(folder / f"frame_{number:04d}.png")
    out = segment(folder, channels=3)
    assert len(list(out.glob("frame_*.png"))) == 3


def test_overlays_have_the_names_of_their_images():
    files = ["n0.png", "b.JPG", "scan.nii.gz", "x.y.tif", "two.png", "two.nii"]
    names = _overlay_names([Path(file) for file in files])
    assert list(names.values()) == [
        *("n0.png", "b.png", "scan.png", "x.y.png", "two_png.png", "two_nii.png")
    ]


def test_the_known_spacing_measures_new_files_too(segment, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = np.full((4, 10, 12), 120, np.uint8)
    tifffile.imwrite(folder / "a.tif", pixels, photometric="minisblack")
    out = segment(folder, dims=3, known_spacing=(2.0, 3.0, 5.0))
    rows = list(csv.DictReader((out / "classes.csv").read_text().splitlines()))
    assert float(rows[1]["volume_ml"]) == pytest.approx(480 * 30 / 1000)
    assert tifffile.imread(out / "a.tif").shape == (4, 10, 12)


def test_a_printing_resolution_is_no_pixel_size_for_a_run_of_version_0_1(
    segment, tmp_path
):
    (tmp_path / "in").mkdir()
    options = {"resolution": (180, 180), "resolutionunit": "INCH"}
    tifffile.imwrite(tmp_path / "in/a.tif", _picture(1)[0], **options)
    with pytest.raises(InputError, match="1 of 1 images not segmented") as info:
        segment(tmp_path / "in", spacing=(0.14, 0.14))
    assert "a.tif: has a resolution for printing and no pixel" in info.value.details[0]
    assert "pixels of (0.14, 0.14) mm" in info.value.details[0]
    assert segment(tmp_path / "in", spacing=(0.14, 0.14), known_spacing=(0.2, 0.2))


@pytest.mark.parametrize("shape", [(20, 24), (20, 24, 1), (20, 24, 1, 1)])
def test_a_label_map_has_all_axes_of_its_nifti(segment, tmp_path, shape):
    (tmp_path / "in").mkdir()
    pixels = _picture(1)[0, :20, :24].astype(np.int16)
    affine = np.array([[0.8, 0.6, 0, 5], [-0.6, 0.8, 0, 7], [0, 0, 3, 9], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(pixels.reshape(shape), affine)
    nibabel.save(image, tmp_path / "in/a.nii")
    out = segment(tmp_path / "in", outputs=["probabilities"])
    label = nibabel.load(out / "a.nii.gz")
    np.testing.assert_array_equal(label.get_fdata(), pixels.reshape(shape) > 100)
    assert np.load(out / "a.probabilities.npy").shape == (*shape, 2)
    for table in ("colors.ctbl", "colors.itksnap.txt"):
        rows = (out / table).read_text().splitlines()
        assert [row[0] for row in rows if row[0] != "#"] == ["0", "1"]
    np.testing.assert_allclose(label.affine, nibabel.load(tmp_path / "in/a.nii").affine)


@pytest.mark.parametrize("shape", [(6, 20, 24), (20, 24)])
def test_maps_of_a_nifti_lie_on_its_grid(segment, tmp_path, shape):
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 200, shape).astype(np.int16)
    affine = np.array([[0, 0.6, 0.8, 5], [0, 0.8, -0.6, 7], [3, 0, 0, 9], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(pixels, affine)
    image.header.set_slope_inter(2.0, 1.0)
    nibabel.save(image, tmp_path / "in/a.nii")
    stored = nibabel.load(tmp_path / "in/a.nii")
    out = segment(tmp_path / "in", dims=len(shape), votes=2, outputs=["uncertainty"])
    entropy, disagreement = (
        nibabel.load(out / f"a.{name}.nii.gz") for name in ("entropy", "disagreement")
    )
    for one in (entropy, disagreement):
        assert one.get_data_dtype() == np.float32
        assert one.shape == shape
        np.testing.assert_allclose(one.affine, stored.affine)
    values = stored.get_fdata() / 1000
    np.testing.assert_allclose(entropy.get_fdata(), values, rtol=1e-6)
    np.testing.assert_allclose(disagreement.get_fdata(), 1 - values, rtol=1e-6)
    rows = list(csv.DictReader((out / "classes.csv").read_text().splitlines()))
    for row, inside in zip(rows, (values <= 0.1, values > 0.1), strict=True):
        mean = values[inside].mean()
        np.testing.assert_allclose(float(row["mean_entropy"]), mean, rtol=1e-5)
        np.testing.assert_allclose(float(row["mean_disagreement"]), 1 - mean, rtol=1e-5)


def test_maps_of_pictures_and_tiff_are_tiff(segment, tmp_path):
    (tmp_path / "in").mkdir()
    pixels = _picture(1)[0]
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "in/a.png")
    tags = [(42113, "s", 0, "7", True)]
    with_missing = np.where(pixels > 190, 7, pixels)
    tifffile.imwrite(tmp_path / "in/b.tif", with_missing, extratags=tags)
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "in/c.png")
    tifffile.imwrite(tmp_path / "in/c.tif", np.zeros((9, 8), np.uint8))
    out = segment(tmp_path / "in", outputs=["uncertainty"])
    found = tifffile.imread(out / "a.entropy.tif")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, pixels / 1000, rtol=1e-6)
    found = tifffile.imread(out / "b.entropy.tif")
    np.testing.assert_array_equal(np.isnan(found), with_missing == 7)
    names = {path.name for path in out.glob("*.entropy.tif")}
    assert names == {f"{name}.entropy.tif" for name in ("a", "b", "c_png", "c_tif")}
    assert not list(out.glob("*disagreement*"))
    text = (out / "classes.csv").read_text()
    head = "file,class,pixels,area_mm2,volume_ml,objects,mean_entropy"
    assert text.startswith(f"{head}\n")
    assert text.splitlines()[-1] == "c.tif,foreground,0,,,0,"
    for path in (out / "a.png", out / "overlays/a.png"):
        path.unlink()
    with pytest.raises(InputError, match=r"a\.entropy\.tif: exists"):
        segment(tmp_path / "in/a.png", outputs=["uncertainty"])


def test_a_volume_gives_one_prediction_in_every_format(segment, tmp_path):
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 200, (5, 6, 7)).astype(np.int16)
    affine = np.array([[0, 0.1, -2, 5], [-3, 0, 0, 6], [0, 1, 0.2, 7], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(pixels, affine), tmp_path / "in/a.nii.gz")
    for name in ("b.nrrd", "c.mha"):
        image = SimpleITK.ReadImage(str(tmp_path / "in/a.nii.gz"))
        SimpleITK.WriteImage(image, str(tmp_path / f"in/{name}"))
    out = segment(tmp_path / "in", outputs=["uncertainty"])
    maps = [read_label(out / name) for name in ("a.nii.gz", "b.nrrd", "c.mha")]
    for one in maps:
        np.testing.assert_array_equal(one.image[..., 0], pixels > 100)
        np.testing.assert_allclose(one.affine, affine, atol=1e-5)
    with (out / "classes.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["class"] == "foreground"]
    assert np.ptp([float(row["volume_ml"]) for row in rows]) < 1e-6
    objects = _rows(out / "objects.csv")
    count = ndimage.label(pixels > 100, np.ones((3, 3, 3)))[1]
    assert {row["objects"] for row in rows} == {str(count)}
    volumes = [float(row["volume_mm3"]) for row in objects if row["file"] == "a.nii.gz"]
    assert len(volumes) == count
    assert sum(volumes) / 1000 == pytest.approx(float(rows[0]["volume_ml"]))
    assert nibabel.load(out / "b.entropy.nii.gz").shape == (5, 6, 7)


def test_each_dicom_series_of_a_folder_gives_a_nifti_on_its_grid(segment, tmp_path):
    for number in range(2):
        tags = {"RescaleIntercept": 0, "seed": number}
        pixels = write_series(tmp_path / f"in/p{number}", **tags)
    out = segment(tmp_path / "in")
    label, image = read_label(out / "p1.nii.gz"), read_image(tmp_path / "in/p1")
    expected = np.transpose(pixels, (2, 1, 0)) > 100
    np.testing.assert_array_equal(label.image[..., 0], expected)
    np.testing.assert_allclose(label.affine, image.affine, atol=1e-5)
    shutil.rmtree(tmp_path / "out")
    out = segment(tmp_path / "in/p0")
    assert [path.name for path in out.glob("*.nii.gz")] == ["p0.nii.gz"]


def test_a_dicom_series_may_have_the_number_of_a_channel(segment, tmp_path):
    for name in ("p_0000", "q_0000", "q_0001"):
        write_series(tmp_path / f"in/{name}", RescaleIntercept=0, **UIDS)
    out = segment(tmp_path / "in", outputs=["dicom_seg"])
    labels = {path.name for path in out.glob("*.nii.gz")}
    assert labels == {"p.nii.gz", "q_0000.nii.gz", "q_0001.nii.gz"}
    assert (out / "p.seg.dcm").is_file()
    shutil.rmtree(out)
    out = segment(tmp_path / "in/p_0000")
    assert read_label(out / "p.nii.gz").image.any()


def test_a_dicom_series_gives_a_dicom_segmentation_beside_its_label_map(
    segment, tmp_path
):
    tags = {"StudyInstanceUID": "1.2.9", "FrameOfReferenceUID": "1.2.8"}
    write_series(tmp_path / "in/p0", RescaleIntercept=0, **tags)
    out = segment(tmp_path / "in", outputs=["dicom_seg"])
    seg = pydicom.dcmread(out / "p0.seg.dcm")
    count = np.count_nonzero(read_label(out / "p0.nii.gz").image)
    assert np.count_nonzero(seg.pixel_array) == count > 0
    assert [one.SegmentLabel for one in seg.SegmentSequence] == ["foreground"]
    with pytest.raises(InputError, match="exists; expected no such file"):
        segment(tmp_path / "in", outputs=["dicom_seg"])


def test_a_dicom_segmentation_needs_a_series_and_highdicom(
    segment, tmp_path, monkeypatch
):
    (tmp_path / "in").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "in/a.png")
    with pytest.raises(InputError, match="holds no DICOM series; expected one for"):
        segment(tmp_path / "in", outputs=["dicom_seg"])
    monkeypatch.setitem(sys.modules, "highdicom.seg", None)
    with pytest.raises(InputError, match="run `pip install highdicom`"):
        segment(tmp_path / "in", outputs=["dicom_seg"])
    assert not (tmp_path / "out").exists()


def test_the_only_channel_of_nnunet_is_no_part_of_the_name(segment, tmp_path):
    (tmp_path / "in").mkdir()
    pixels = _picture(1)[0].astype(np.uint8)
    for name in ("a_0000", "b_0000", "b", "c_0000", "c_0001", "d_0001"):
        Image.fromarray(pixels).save(tmp_path / f"in/{name}.png")
    names = {path.name for path in segment(tmp_path / "in").glob("*.png")}
    # b has this name already, and c has two frames.
    frames = {"b.png", "b_0000.png", "c_0000.png", "c_0001.png", "d_0001.png"}
    assert names == {"a.png", *frames}
    shutil.rmtree(tmp_path / "out")
    out = segment(tmp_path / "in/a_0000.png")
    assert [path.name for path in out.glob("*.png")] == ["a.png"]


def test_pixels_without_data_are_background(segment, tmp_path):
    (tmp_path / "in").mkdir()
    pixels = _picture(1)[0].astype(np.float32) + 100
    pixels[:9] = -1e38
    tags = [(42113, "s", 0, "-1e38", True)]
    tifffile.imwrite(tmp_path / "in/a.tif", pixels, extratags=tags)
    label = tifffile.imread(segment(tmp_path / "in") / "a.tif")
    assert not label[:9].any()
    np.testing.assert_array_equal(label[9:], pixels[9:] > 100)


def test_contours_are_of_the_slices_that_the_network_saw(segment, tmp_path):
    (tmp_path / "in").mkdir()
    label = np.zeros((12, 22, 20), np.uint8)  # stored z, y, x
    label[3, 4:9, 5:15] = 200
    affine = np.array([[0, 0, 1.0, 0], [0, 1, 0, 0], [4, 0, 0, 0], [0, 0, 0, 1]])
    path = tmp_path / "in/a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(label, affine), path)
    out = segment(path, outputs=["contours"])
    (feature,) = json.loads((out / "a.geojson").read_text())["features"]
    assert feature["properties"]["slice"] == 3
    assert feature["properties"]["pixels"] == 50
    columns, rows = np.array(feature["geometry"]["coordinates"][0]).T
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (5, 15, 4, 9)


def test_files_that_fail_have_a_line_each(segment, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(_picture(1)[0].astype(np.uint8)).save(folder / "a.png")
    (folder / "b.png").write_bytes(b"")
    (folder / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"2 of 3 images not segmented:$") as info:
        segment(folder)
    assert [line.split(":")[0][-5:] for line in info.value.details] == [
        "b.png",
        "c.png",
    ]
    assert (tmp_path / "out/a.png").exists()


def test_names_of_any_bytes_are_segmented_and_drawn(segment, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    names = ["gr\udcfcn.png", "a$x_1$y.png", "a\\b_{1}^$c$.png", "患者.png"]
    for number, name in enumerate(names):
        Image.fromarray(_picture(1, number)[0].astype(np.uint8)).save(folder / name)
    out = segment(folder)
    for name in names:
        assert (out / name).exists()
        assert (out / "overlays" / name).exists()
    assert "gr\\xfcn.png" in (out / "classes.csv").read_text(encoding="utf-8")


def test_a_picture_that_cannot_be_drawn_ends_no_batch(segment, tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(_picture(1)[0].astype(np.uint8)).save(folder / name)
    draw = predict.overlay

    def failing(*arguments, title, **options):
        if title == "b.png":
            raise MemoryError("figure too large")
        return draw(*arguments, title=title, **options)

    monkeypatch.setattr(predict, "overlay", failing)
    with pytest.raises(InputError, match="1 of 3 images not segmented or not") as info:
        segment(folder)
    (line,) = info.value.details
    assert line.endswith(
        "b.png: segmented, but not drawn (MemoryError: figure too large)"
    )
    out = tmp_path / "out"
    assert {path.name for path in out.glob("*.png")} == {"a.png", "b.png", "c.png"}
    assert len((out / "classes.csv").read_text().splitlines()) == 1 + 3 * 2


@pytest.mark.parametrize("place", ["{0}{1}.png", "{0}/{0}{1}.png", "{0}/{1}.png"])
def test_channels_have_the_endings_of_the_run(segment, tmp_path, place):
    endings = ("_t1", "_t1ce")
    pixels = {name: _picture(2, number) for number, name in enumerate("ab")}
    for name, image in pixels.items():
        for ending, channel in zip((*endings, "_seg"), (*image, image[0]), strict=True):
            path = tmp_path / "in" / place.format(name, ending)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(channel.astype(np.uint8)).save(path)
    for order in (endings, endings[::-1]):
        out = segment(tmp_path / "in", channels=2, channels_=order)
        assert {path.name for path in out.glob("*.png")} == {"a.png", "b.png"}
        for name, image in pixels.items():
            found = np.asarray(Image.open(out / f"{name}.png"))
            np.testing.assert_array_equal(found, image.mean(axis=0) > 100)
        shutil.rmtree(out)
    one = tmp_path / "in" / place.format("a", "_t1ce")
    out = segment(one, channels=2, channels_=endings)
    assert len(list(out.glob("*.png"))) == 1
    shutil.rmtree(out)
    one.unlink()
    with pytest.raises(InputError, match="no files for the channel '_t1ce'"):
        segment(tmp_path / "in", channels=2, channels_=endings)


def test_images_unlike_training_are_told_in_one_line(
    segment, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        pixels = np.full((6, 7), 80 * number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")

    def distance(run, stored):
        away = float(stored.image.mean()) / 100
        return Distance(away, away / 2)

    monkeypatch.setattr(TrainedRun, "distance", distance)
    rows = _rows(segment(folder) / "classes.csv")
    warning = "warning: 1 of 3 images are unlike those that the network"
    assert capsys.readouterr().out.count(warning) == 1
    columns = ("distance_features", "distance_intensities", "unlike_training")
    assert [tuple(row[column] for column in columns) for row in rows[::2]] == [
        ("0.0", "0.0", "no"),
        ("0.8", "0.4", "no"),
        ("1.6", "0.8", "yes"),
    ]


def test_a_run_without_a_distance_adds_no_column_and_no_warning(
    segment, tmp_path, capsys
):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((6, 7), np.uint8)).save(path)
    out = segment(path)
    assert "warning" not in capsys.readouterr().out
    columns = ["file", "class", "pixels", "area_mm2", "volume_ml", "objects"]
    assert list(_rows(out / "classes.csv")[0]) == columns
