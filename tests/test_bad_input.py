"""Whatever a user gives that cannot be used: exit code 2, one line, nothing lost.

A table of faults for each kind of input; each fault goes through every mode that meets
it. ``<any>`` stands for words of a library. After each command every file below the
temporary folder is as it was, and nothing is new outside the workdir.
"""

import contextlib
import gzip
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from configs import folder as folder_config
from unet_jax.experiment import (
    create_network,
    create_optimizer_and_schedule,
    fit_preprocessing,
    open_dataset,
)
from unet_jax.settings import complete_config
from unet_jax.training.checkpoint import Checkpoints
from unet_jax.training.manifest import write_sums
from unet_jax.training.state import create_train_state
from unet_jax.workdir import make_record, write_record

pytestmark = pytest.mark.slow  # some 300 commands

SIZE = 24
SMALL = {
    "model.features": (2, 4),
    "train.patch_size": (16, 16),
    "train.memory_gib": 0.001,
    "train.steps": 2,
    "train.batch_size": 4,
    "eval.every_steps": 2,
    "eval.train_images": 1,
    "eval.mirror": False,
    "eval.metrics": ("dice",),
    "log.overlays": 0,
    "optimizer.warmup_steps": 1,
}
TRAIN = ["--config=configs/folder.py", *(f"--config.{k}={v}" for k, v in SMALL.items())]


# ---- What is shared: a data set, a run on it, and the three promises ----


def _write_set(folder):
    """Six grey pictures, each with a square of class 1."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(6):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[4 + index : 14 + index, 5:18] = 1
        image = (100 * mask + rng.integers(0, 50, mask.shape)).astype(np.uint8)
        Image.fromarray(image).save(folder / f"images/{index}.png")
        Image.fromarray(mask).save(folder / f"masks/{index}.png")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder with ``data`` and ``run``; nobody changes it."""
    folder = tmp_path_factory.mktemp("shared")
    _write_set(folder / "data")
    _write_run(folder / "run", folder / "data")
    return folder


def _write_run(workdir, data):
    """What a run leaves behind; its weights are the first ones, to save minutes."""
    config = folder_config.get_config()
    config.update_from_flattened_dict({**SMALL, "data.path": str(data)})
    dataset = open_dataset(config, workdir)
    config = complete_config(config, dataset)
    preprocessing = fit_preprocessing(config, dataset.source("train"))
    state = create_train_state(
        create_network(config, axis_name=None),
        create_optimizer_and_schedule(config)[0],
        seed=0,
        input_shape=(*config.train.patch_size, preprocessing.channels),
        ema=False,
    )
    record = make_record(
        config.to_dict(),
        preprocessing=preprocessing.to_dict(),
        dataset=dataset.fingerprint,
    )
    write_record(workdir, record)
    best = {"score": 0.5, "step": 2, "evaluations_since": 0, "stopped": False}
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        checkpoints.save(2, state, iterator_state={}, record=best, score=0.5)
    (workdir / "test_metrics.json").write_text('{"per_case": []}')


@pytest.fixture
def place(shared, tmp_path):
    """A copy of it for one test, with the malicious pickles' target beside it."""
    shutil.copytree(shared, tmp_path, dirs_exist_ok=True)
    record = tmp_path / "run/config.json"
    record.write_text(record.read_text().replace(str(shared), str(tmp_path)))
    return tmp_path


def _listing(folder):
    """Every file and folder below, with the SHA-256 of each file."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def refused(command_line, place):
    """Give a function that checks the promises for one command."""

    def check(line, *arguments, workdir=None):
        before = _listing(place)
        answer = command_line(*arguments)
        after = _listing(place)
        line = line.replace("{here}", str(place))
        pattern = ".+".join(map(re.escape, line.split("<any>")))
        assert re.fullmatch(f"unet_jax: error: {pattern}\n", answer.stderr), (
            f"{answer.stderr}\nfor\n{line}"
        )
        assert answer.code == 2
        if workdir is not None:  # what a scan found is kept there
            before.pop(workdir / "dataset.json", None)
        assert {path: after.get(path) for path in before} == before
        new = [path for path in after.keys() - before.keys() if path != workdir]
        outside = [p for p in new if workdir is None or workdir not in p.parents]
        assert not outside

    return check


def _train(place, *more):
    return [
        *TRAIN,
        f"--config.data.path={place / 'data'}",
        f"--workdir={place / 'new'}",
        *more,
    ]


def _with_data(mode, place):
    """A command of a mode that reads the data, and the workdir that it may write."""
    if mode == "train":
        return _train(place), place / "new"
    return [f"--mode={mode}", f"--workdir={place / 'run'}"], place / "run"


def _predict(place, source, *more):
    return [
        "--mode=predict",
        f"--workdir={place / 'run'}",
        f"--input={source}",
        f"--output={place / 'out'}",
        *more,
    ]


READ_DATA = ["train", "evaluate", "compare"]


# ---- Files: formats, sizes, dtypes ----


class Malicious:
    """A pickle of it makes the file ``malicious`` when it is loaded."""

    def __reduce__(self):
        return open, (str(Path.cwd() / "malicious"), "w")


GREY = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE)


def _picture(form, pixels=GREY):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def _tiff(pixels=GREY, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def _axes(names):
    return {"photometric": "minisblack", "metadata": {"axes": names}}


def _nifti(*shape, dtype=np.int16):
    return nibabel.Nifti1Image(np.zeros(shape, dtype), np.eye(4)).to_bytes()


def _png(width, height):
    """A PNG that says so of its size, and holds nothing."""
    data = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b""))):
        check = struct.pack(">I", zlib.crc32(name + body))
        data += struct.pack(">I", len(body)) + name + body + check
    return data


def _not_finite(value):
    pixels = np.ones((SIZE, SIZE), np.float32)
    pixels[0, :3] = value
    return pixels


WHOLE = {
    ".png": ("PNG", _picture("PNG")),
    ".jpg": ("JPEG", _picture("JPEG")),
    ".bmp": ("BMP", _picture("BMP")),
    ".tif": ("TIFF", _tiff()),
    ".nii": ("NIfTI", _nifti(SIZE, SIZE, 4)),
    ".nii.gz": ("gzip-compressed NIfTI", gzip.compress(_nifti(SIZE, SIZE, 4))),
}


class BadFile(NamedTuple):
    """A file that is no image; ``line`` follows its name and a colon."""

    name: str
    suffix: str
    content: bytes
    line: str


def _bad_files():
    unknown = "expected {form} as its name says; export or copy it again"
    for suffix, (form, whole) in WHOLE.items():
        foreign = "PNG" if form == "BMP" else "BMP"
        for name, content, line in (
            ("empty", b"", "is empty (0 bytes); expected {form}; copy it again"),
            (
                "garbage",
                bytes(range(7, 107)),
                "holds unknown content (it starts with b'\\x07\\x08\\t\\n\\x0b\\x0c"
                "\\r\\x0e'); " + unknown,
            ),
            (
                "text",
                b"id,split\n1,train\n",
                "holds unknown content (it starts with b'id,split'); " + unknown,
            ),
            (
                "a pickle",
                pickle.dumps(Malicious()),
                "holds unknown content (it starts with <any>); " + unknown,
            ),
            (
                "another format",
                _picture(foreign),
                f"holds {foreign}; expected {{form}} as its name says; rename it",
            ),
            (
                "cut",
                whole[: len(whole) // 2],
                "cannot be read (<any>); expected a whole {form} file; export or copy "
                "it again",
            ),
        ):
            line = line.replace("{form}", form)
            yield BadFile(f"{suffix} {name}", suffix, content, line)


_FINITE = (
    "3 of 576 values are NaN or infinite; expected finite numbers; replace them, e.g. "
    "with numpy.nan_to_num, and save again"
)
_COMPLEX = "pixels are complex64; expected real numbers; save it as integers or floats"
_AXES = "expected YX or ZYX with at most one channel axis; save one time point or "
_VOLUME = "expected (x, y, z) or (x, y, z, channels); save one volume a file"
BAD_FILES = [
    *_bad_files(),
    BadFile(
        "no pixels, PNG",
        ".png",
        _png(0, 0),
        "cannot be read (<any>); expected a whole PNG file; export or copy it again",
    ),
    BadFile(
        "3.6 gigapixels, PNG",
        ".png",
        _png(60000, 60000),
        "cannot be read (<any>); expected a whole PNG file; save so large an image as "
        "TIFF",
    ),
    BadFile(
        "no pixels, NIfTI",
        ".nii",
        _nifti(0, 4, 4),
        "shape (0, 4, 4, 1) has no pixels; expected an image; export it again",
    ),
    BadFile("1-D", ".nii", _nifti(9), f"shape (9, 1); {_VOLUME}"),
    BadFile(
        "6-D",
        ".nii",
        _nifti(4, 4, 4, 2, 2, 2),
        f"shape (4, 4, 4, 2, 2, 2); {_VOLUME}",
    ),
    BadFile(
        "4-D TIFF",
        ".tif",
        _tiff(np.zeros((2, 3, SIZE, SIZE), "u1"), **_axes("TZYX")),
        f"axes TZYX of shape (2, 3, 24, 24); {_AXES}channel a file",
    ),
    BadFile("NaN, TIFF", ".tif", _tiff(_not_finite(np.nan)), _FINITE),
    BadFile("Inf, TIFF", ".tif", _tiff(_not_finite(-np.inf)), _FINITE),
    BadFile(
        "NaN, NIfTI",
        ".nii",
        nibabel.Nifti1Image(_not_finite(np.nan), np.eye(4)).to_bytes(),
        _FINITE,
    ),
    BadFile("complex, TIFF", ".tif", _tiff(GREY.astype(np.complex64)), _COMPLEX),
    BadFile("complex, NIfTI", ".nii", _nifti(9, 9, dtype=np.complex64), _COMPLEX),
]
RGB = np.zeros((SIZE, SIZE, 3), np.uint8)
MANY = np.zeros((5, SIZE, SIZE), np.uint8)
OTHER_CHANNELS = [
    BadFile("3 channels", ".png", _picture("PNG", RGB), "3"),
    BadFile("5 channels", ".tif", _tiff(MANY, **_axes("CYX")), "5"),
]


@pytest.mark.parametrize("bad", BAD_FILES, ids=lambda bad: bad.name)
@pytest.mark.parametrize("mode", READ_DATA)
def test_an_image_that_is_none(place, refused, mode, bad):
    (place / "data/images/2.png").unlink()
    file = place / f"data/images/2{bad.suffix}"
    file.write_bytes(bad.content)
    if bad.suffix == ".nii":  # its mask must say as well how its pixels lie
        mask = place / "data/masks/2.png"
        labels = np.asarray(Image.open(mask)).T
        nibabel.Nifti1Image(labels, np.eye(4)).to_filename(mask.with_suffix(".nii"))
        mask.unlink()
    _one_fault(refused, mode, place, f"{file}: {bad.line}")
    assert not Path("malicious").exists()


def _one_fault(refused, mode, place, line):
    """See that a mode reports a fault of the data."""
    command, workdir = _with_data(mode, place)
    head = f"data.path {place / 'data'}: 1 fault in the data; mend them all:"
    refused(f"{head}\n  {line}", *command, workdir=workdir)


@pytest.mark.parametrize("bad", OTHER_CHANNELS, ids=lambda bad: bad.name)
@pytest.mark.parametrize("mode", READ_DATA)
def test_an_image_of_other_channels(place, refused, mode, bad):
    (place / "data/images/2.png").unlink()
    file = place / f"data/images/2{bad.suffix}"
    file.write_bytes(bad.content)
    _one_fault(
        refused,
        mode,
        place,
        f"{file}: channels: {bad.line} in 1 cases; expected 1 as in the others; "
        "convert or remove them",
    )


def test_predict_names_each_bad_file_and_does_the_good_one(place, refused):
    folder = place / "in"
    folder.mkdir()
    lines = []
    convert = "convert it (RGB to grey, or grey to RGB) or choose another model"
    for number, bad in enumerate([*BAD_FILES, *OTHER_CHANNELS]):
        file = folder / f"{number:03}{bad.suffix}"
        file.write_bytes(bad.content)
        line = bad.line
        if bad in OTHER_CHANNELS:
            line = f"{line} channels; expected 1 as in training; {convert}"
        lines.append(f"{file}: {line}")
    shutil.copy(place / "data/images/0.png", folder / "zzz.png")
    count = len(lines)
    refused(
        f"--input {folder}: {count} of {count + 1} images not segmented:\n  "
        + "\n  ".join(lines),
        *_predict(place, folder),
        workdir=place / "out",
    )
    assert not Path("malicious").exists()
    names = [path.name for path in (place / "out").iterdir()]
    assert sorted(names) == ["classes.csv", "overlays", "zzz.png"]


@pytest.mark.parametrize("flag", ["--noprobabilities", "--contours"])
def test_predict_of_one_bad_file_leaves_nothing(place, refused, flag):
    (place / "a.png").write_bytes(b"")
    line = f"{place / 'a.png'}: is empty (0 bytes); expected PNG; copy it again"
    refused(
        f"--input {place / 'a.png'}: 1 of 1 images not segmented:\n  {line}",
        *_predict(place, place / "a.png", flag),
    )
    assert not (place / "out").exists()


# ---- Labels ----

GOOD = np.zeros((SIZE, SIZE), np.uint8)
GOOD[4:14, 5:18] = 1
_MASK = "{here}/data/masks/2"
_GAP = (
    "masks: the values {} ({} only in {}); expected 0 to a largest class without a "
    "gap, or a map, in this order, or another (-1 to ignore a value): data.label_map={}"
)
BAD_MASKS = {
    "out of range": (
        ".png",
        _picture("PNG", GOOD * 7),
        _GAP.format("0, 1, 7", 7, f"{_MASK}.png", "((0, 0), (1, 1), (7, -1))"),
    ),
    "negative": (
        ".tif",
        _tiff(-GOOD.astype(np.int16)),
        _GAP.format("-1, 0, 1", -1, f"{_MASK}.tif", "((0, 0), (1, 1), (-1, -1))"),
    ),
    "fractions": (
        ".tif",
        _tiff(GOOD.astype(np.float32) / 2),
        f"{_MASK}.tif: 130 of 576 values are no whole numbers, such as 0.5; expected "
        "the class of every pixel; save the mask without interpolation",
    ),
    "NaN": (
        ".tif",
        _tiff(_not_finite(np.nan)),
        f"{_MASK}.tif: {_FINITE}",
    ),
    "another size": (
        ".png",
        _picture("PNG", GOOD[:20]),
        f"{_MASK}.png: size (20, 24); expected (24, 24) as 2.png; export both from "
        "one grid",
    ),
    "5 channels": (
        ".tif",
        OTHER_CHANNELS[1].content,
        f"{_MASK}.tif: 5 channels; expected one value a pixel, or red, green and "
        "blue; save one mask a file",
    ),
    "blurred by JPEG": (
        ".jpg",
        _picture("JPEG", (np.hypot(*np.indices(GREY.shape)) * 7).astype(np.uint8)),
        f"{_MASK}.jpg: <any> different values; expected at most 2 in a JPEG, which "
        "blurs the edges of a mask into values of no class; save masks as PNG or TIFF",
    ),
    "empty": (
        ".png",
        b"",
        f"{_MASK}.png: is empty (0 bytes); expected PNG; copy it again",
    ),
    "missing": (
        ".txt",
        b"",
        "{here}/data/images/2.png: has no mask; expected one of its name; add it or "
        "move the image away",
    ),
}


@pytest.mark.parametrize("name", BAD_MASKS)
@pytest.mark.parametrize("mode", READ_DATA)
def test_a_mask_that_is_none(place, refused, mode, name):
    suffix, content, line = BAD_MASKS[name]
    (place / "data/masks/2.png").unlink()
    (place / f"data/masks/2{suffix}").write_bytes(content)
    if mode != "train" and line.startswith("masks:"):
        found = line.partition("values ")[2].partition(" (")[0]
        line = (
            f"{_MASK}{suffix}: the label has the values {found}, expected 0, 1; give "
            "every stored value its class (-1 to ignore it), such as label_map = <any>"
        )
    _one_fault(refused, mode, place, line)


@pytest.mark.parametrize("mode", READ_DATA)
def test_a_mask_without_an_image(place, refused, mode):
    (place / "data/images/2.png").unlink()
    line = "{here}/data/masks/2.png: has no image; expected one of its name"
    _one_fault(refused, mode, place, line)


def test_labels_that_are_all_ignored(place, refused):
    line = (
        "class 0 (a): no training case has it; expected one; mend data.class_names, "
        "data.label_map or the split"
    )
    refused(
        f"data.path {place / 'data'}: 2 faults in the data; mend them all:\n  {line}\n"
        f"  {line.replace('0 (a)', '1 (b)')}",
        *_train(place),
        "--config.data.label_map=((0,-1),(1,-1))",
        "--config.data.class_names=('a','b')",
        workdir=place / "new",
    )


# ---- Paths ----

_OF_A_RUN = "expected the folder of a run; train one first"
_NO_DATA = "expected a folder with images and masks"
PATHS = {
    "predict: nothing there": (
        "{here}/no.png: no such file or folder; give an image or a folder",
        lambda here: _predict(here, here / "no.png"),
    ),
    "predict: an empty folder": (
        "{here}/empty: no image among 0 files; expected one of .png .jpg .jpeg .bmp "
        ".tif .tiff .nii.gz .nii",
        lambda here: _predict(here, here / "empty"),
    ),
    "predict: another kind of file": (
        "{here}/run/config.json: unknown suffix '.json'; expected one of .png .jpg "
        ".jpeg .bmp .tif .tiff .nii.gz .nii; convert it to one of these",
        lambda here: _predict(here, here / "run/config.json"),
    ),
    "predict: an array with pickles": (
        "{here}/pickled.npy: unknown suffix '.npy'; expected one of .png .jpg .jpeg "
        ".bmp .tif .tiff .nii.gz .nii; convert it to one of these",
        lambda here: _predict(here, here / "pickled.npy"),
    ),
    "predict: the output is a file": (
        "--output {here}/file: {here}/file is a file, expected a folder; name another",
        lambda here: [*_predict(here, here / "data/images"), f"--output={here}/file"],
    ),
    "predict: the output is in a file": (
        "--output {here}/file/a: {here}/file is a file, expected a folder; name "
        "another",
        lambda here: [*_predict(here, here / "data/images"), f"--output={here}/file/a"],
    ),
    "predict: the output is the input": (
        "--output {here}/data/masks/../images: is the folder of the images, whose "
        "files could be overwritten; name another",
        lambda here: [
            *_predict(here, here / "data/images/1.png", "--overwrite"),
            f"--output={here}/data/masks/../images",
        ],
    ),
    "predict: no run": (
        f"--workdir {{here}}/empty: found no config.json, {_OF_A_RUN}",
        lambda here: [
            *_predict(here, here / "data/images"),
            f"--workdir={here / 'empty'}",
        ],
    ),
    "evaluate: no run": (
        f"--workdir {{here}}/no: found no config.json, {_OF_A_RUN}",
        lambda here: ["--mode=evaluate", f"--workdir={here / 'no'}"],
    ),
    "evaluate: no run among several": (
        f"--workdir {{here}}/empty: found no config.json, {_OF_A_RUN}",
        lambda here: ["--mode=evaluate", f"--workdirs={here}/run,{here}/empty"],
    ),
    "evaluate: several into one of them": (
        "--workdir {here}/run: is the folder of a run, whose scores would be replaced; "
        "name another",
        lambda here: [
            "--mode=evaluate",
            f"--workdirs={here}/run,{here}/run",
            f"--workdir={here}/run",
        ],
    ),
    "compare: no run": (
        f"--workdir {{here}}/empty: found no config.json, {_OF_A_RUN}",
        lambda here: ["--mode=compare", f"--workdir={here / 'empty'}"],
    ),
    "compare: no run among several": (
        f"--workdir {{here}}/no: found no config.json, {_OF_A_RUN}",
        lambda here: ["--mode=compare", f"--runs={here}/run,{here}/no"],
    ),
    "compare: several into one of them": (
        "--workdir {here}/run: is the folder of a run, whose scores would be replaced; "
        "name another",
        lambda here: [
            "--mode=compare",
            f"--runs={here}/run,{here}/run",
            f"--workdir={here}/run",
        ],
    ),
    "compare: several into a file": (
        "--workdir {here}/file: found a file, expected a folder",
        lambda here: [
            "--mode=compare",
            f"--runs={here}/run,{here}/run",
            f"--workdir={here}/file",
        ],
    ),
    **{
        f"{mode}: the workdir is a file": (
            "--workdir {here}/file: found a file, expected a folder",
            lambda here, mode=mode: [
                *_train(here)[: len(_train(here)) if mode == "train" else 0],
                f"--mode={mode}",
                f"--workdir={here}/file",
                f"--input={here}/data/images",
                f"--output={here}/out",
            ],
        )
        for mode in ("train", "evaluate", "predict", "compare")
    },
    "train: no data named": (
        "data.path: found nothing, expected a folder with images and masks; give "
        "--config.data.path=FOLDER",
        lambda here: _train(here, "--config.data.path="),
    ),
    "train: no such data": (
        f"data.path: {{here}}/no is nothing, {_NO_DATA}",
        lambda here: _train(here, f"--config.data.path={here / 'no'}"),
    ),
    "train: the data are a file": (
        f"data.path: {{here}}/file is a file, {_NO_DATA}",
        lambda here: _train(here, f"--config.data.path={here / 'file'}"),
    ),
    "train: the data are an empty folder": (
        "data.path: {here}/empty holds 0 images and 0 masks (<any>), and none belong "
        "together; expected files (<any>) of equal names in two folders such as "
        "images/ and masks/, or masks with a suffix such as _mask; set data.images and "
        "data.masks, or data.mask_suffix",
        lambda here: _train(here, f"--config.data.path={here / 'empty'}"),
    ),
    "train: no such folder of masks": (
        "data.masks: {here}/data/truth is no folder",
        lambda here: _train(here, "--config.data.masks=truth"),
    ),
    "train: the workdir is the data": (
        "--workdir {here}/data: is data.path, the folder of the images; name another",
        lambda here: _train(here, f"--workdir={here / 'data'}"),
    ),
    "train: weights of no run": (
        f"--workdir {{here}}/empty: found no config.json, {_OF_A_RUN}",
        lambda here: _train(here, f"--config.init_from={here / 'empty'}"),
    ),
}


@pytest.mark.parametrize("name", PATHS)
def test_a_path_that_leads_nowhere(place, refused, name):
    (place / "empty").mkdir()
    (place / "file").write_text("mine")
    with open(place / "pickled.npy", "wb") as stream:
        np.save(stream, np.array([Malicious()], object), allow_pickle=True)
    line, command = PATHS[name]
    refused(line, *command(place), workdir=place / "new")
    assert not Path("malicious").exists()


@pytest.mark.parametrize("mode", ["evaluate", "compare"])
@pytest.mark.parametrize("change", ["gone", "a file", "other pixels"])
def test_data_of_a_run_that_are_gone_or_changed(place, refused, mode, change):
    if change == "other pixels":
        Image.fromarray(GREY).save(place / "data/images/0.png")
        line = (
            "--workdir {here}/run: the data changed since its run began (<any>.sha256 "
            "was <any>, is <any>); restore them, or name another --workdir"
        )
    else:
        shutil.rmtree(place / "data")
        if change == "a file":
            (place / "data").write_text("mine")
        found = "a file" if change == "a file" else "nothing"
        line = f"data.path: {{here}}/data is {found}, {_NO_DATA}"
    refused(line, f"--mode={mode}", f"--workdir={place}/run", workdir=place / "run")


# ---- Outputs ----


@pytest.mark.parametrize(
    "there", ["0.png", "overlays/1.png.png", "classes.csv", "1.geojson"]
)
def test_predict_asks_before_it_replaces(place, refused, command_line, there):
    target = place / "out" / there
    target.parent.mkdir(parents=True)
    target.write_text("mine")
    command = _predict(place, place / "data/images", "--contours")
    refused(
        f"{target}: exists; expected no such file; choose another output folder, or "
        "replace what is there with --overwrite",
        *command,
    )
    if there == "0.png":
        assert command_line(*command, "--overwrite").code == 0
        with Image.open(target) as replaced:
            assert replaced.size == (SIZE, SIZE)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_predict_never_replaces_an_input(place, refused, link):
    # The output of 0.png is, by another name, the input 9.png.
    (place / "out").mkdir()
    link(place / "data/images/0.png", place / "out/0.png")
    shutil.copytree(place / "data/images", place / "in")
    (place / "in/9.png").symlink_to(place / "data/images/0.png")
    refused(
        "{here}/out/0.png: is an input image; expected another place for what is "
        "written; choose another output folder",
        *_predict(place, place / "in", "--overwrite"),
    )


def test_predict_does_not_take_a_folder_for_a_file(place, refused):
    (place / "out/0.png").mkdir(parents=True)
    refused(
        "{here}/out/0.png: is a folder; expected nothing, or a file to replace; choose "
        "another output folder",
        *_predict(place, place / "data/images", "--overwrite"),
    )


# ---- Configs ----

_BATCH = "train.batch_size: found -4, expected 1 to 1000000000"
CONFIGS = {
    "--config=configs/no.py": "--config: no file 'configs/no.py'; expected a config "
    "such as configs/brain.py",
    "--config={here}": "--config: no file '{here}'; expected a config such as "
    "configs/brain.py",
    "--config={here}/syntax.py": "--config: cannot be loaded: SyntaxError: <any>",
    "--config={here}/raises.py": "--config: cannot be loaded: ZeroDivisionError: "
    "division by zero",
    "--config={here}/nothing.py": "--config: cannot be loaded: <any>",
    "--config.train.stepz=1": "--config.train.stepz=1: the config has no key 'stepz'; "
    "did you mean 'steps'?",
    "--config.trian.steps=1": "--config.trian.steps=1: the config has no key 'trian'; "
    "did you mean 'train'?",
    "--config.train.steps=many": "flag --config.train.steps=many: <any>",
    "--config.train.steps=1.5": "flag --config.train.steps=1.5: <any>",
    "--config.train.steps=0": "train.steps: found 0, expected 1 to 1000000000",
    "--config.train.batch_size=-4": _BATCH,
    "--config.eval.metrics=None": "eval.metrics: found None, expected names such "
    "as 'dice'",
    "--config.seed=-1": "seed: found -1, expected 0 to 2147483647",
    "--config.eval.overlap=1.0": "eval.overlap: found 1.0, expected 0 to 0.99",
    "--config.optimizer.learning_rate=nan": "optimizer.learning_rate: found nan, "
    "expected 0 to inf",
    # Given twice, a tuple grows: these four follow the (16, 16) of every command.
    "--config.train.patch_size=(16,)": "train.patch_size: found (16, 16, 16) for "
    "pictures, which have two axes; expected 2-D",
    "--config.train.patch_size=(16,16)": "train.patch_size: found (16, 16, 16, 16), "
    "expected two sizes (2-D network) or three (3-D)",
    "--config.train.patch_size=(-1,)": "train.patch_size: found (16, 16, -1), expected "
    "3 whole numbers above 0",
    "--config.train.patch_size=('a',)": "train.patch_size: found (16, 16, 'a'), "
    "expected 3 whole numbers above 0",
    "--config.data.size=(16,16,16)": "data.size: found (16, 16, 16), expected 2 whole "
    "numbers above 0",
    "--config.data.class_names=('a',)": "data.class_names: found ('a',), expected at "
    "least two different names, the background's first",
    "--config.data.class_names=('a','a')": "data.class_names: found ('a', 'a'), "
    "expected at least two different names, the background's first",
    "--config.data.known_spacing=(1.0,)": "data.path {here}/data: 6 faults in the "
    "data; mend them all:"
    + "".join(
        "\n  data.known_spacing: found (1.0,), expected 2 sizes above 0 in mm, one for "
        f"each axis of {{here}}/data/images/{index}.png"
        for index in range(6)
    ),
    "--config.augment.spatial_axes_flip=(7,)": "augment: Option spatial_axes_flip is "
    "(7,); expected axes out of 0, 1, 2",
    "--config.augment.scaling_factor=(0.5,)": "augment: Option scaling_factor is "
    "<any>; expected a lower and an upper limit between <any>",
    "--config.loss=()": "loss: <any>",
    "--config.loss=('dice',)": "loss<any>",
    "--config.loss=(('dice',1.0,3),)": "loss<any>",
    "--config.loss=(('dyce',1.0,{}),)": "<any>unknown loss 'dyce'; expected one <any>",
    "--config.loss=(('dice',-1.0,{}),)": "loss: weight of 'dice': found -1.0, "
    "expected a number from 0 on",
    "--config.model.name=vnet": "model: Unknown model 'vnet'; expected one of <any>",
    "--config.model.head=tree": "model.head: found 'tree', expected 'softmax' or "
    "'sigmoid'",
    "--config.model.features=(2,-4)": "model.features: found -4, expected whole "
    "numbers above 0",
    "--config.model.dropout=2.0": "model.dropout: found 2.0, expected a share from 0 "
    "to below 1, or one a stage",
    "--config.model.dtype=float13": "model: <any>",
    "--config.eval.metrics=('dize',)": "eval.metrics: <any>",
    "--config.eval.metrics=(1,)": "eval.metrics: <any>",
    "--config.eval.postprocess=(('melt',1,1),)": "eval.postprocess: <any>; expected "
    "'auto', or steps such as (('largest_component', 1, None), ('min_size', 1, 20))",
    "--config.data.source=cloud": "data.source: unknown source 'cloud'; expected one "
    "of 'tfds', 'folder', 'path_or_tfds'",
    "--config.data.fold=5": "data.fold: found 5, expected 0 to 4",
    "--config.data.fold=-7": "data.fold: found -7, expected -1 to 999",
    "--config.data.group_regex=(": "data.group_regex: '(': <any>",
    "--config.data.label_map=((0,0),(0,1))": "label_map: ((0, 0), (0, 1)) names a "
    "value twice, expected every stored value once",
    "--config.data.label_map=(1,2)": "label_map: found 1, expected (stored value, "
    "class) or ((first, last), class)",
    "--config.data.palette=((0,0),)": "data.palette[0]: found (0, 0), expected (red, "
    "green, blue), whole numbers from 0 to 255",
    "--config.data.dims=7": "data.dims: found 7, expected 2 to 3",
    "--config.optimizer.name=lion": "<any>unknown optimiser 'lion'<any>",
    "--config.optimizer.schedule=stairs": "<any>'stairs'<any>",
    "--config.optimizer.warmup_steps=9": "optimizer.warmup_steps: found 9, expected "
    "<any>",
    "--config.data.intensity=dark": "data.intensity: unknown intensity 'dark'; "
    "expected one of 'zscore', 'percentile', 'full_range'",
    "--config.data.spacing=(1.0,2.0)": "data.spacing: found (1.0, 2.0), expected 3 "
    "numbers above 0",
    "--mode=fly": "flag --mode=fly: value should be one of <any>",
    "--profile=1": "--profile: found '1', expected START:STOP, two steps such as 10:20",
    "stray": "found the argument 'stray', expected flags only",
}


@pytest.mark.parametrize("argument", CONFIGS)
def test_a_config_that_no_run_can_be_made_of(place, refused, argument):
    (place / "syntax.py").write_text("def get_config(:\n")
    (place / "raises.py").write_text("def get_config():\n    return 1 / 0\n")
    (place / "nothing.py").write_text("")
    line, argument = CONFIGS[argument], argument.replace("{here}", str(place))
    command = _train(place)
    if argument.startswith("--config="):
        command = [f"--workdir={place / 'new'}"]
    refused(line, *command, argument, workdir=place / "new")


SPLITS = {
    "missing": ("no.json", None, "data.splits: {here}/no.json: No such file or <any>"),
    "a folder": (".", None, "data.splits: {here}: Is a directory"),
    "no JSON": (
        "s.json",
        '{"train": [',
        "data.splits: {here}/s.json is no JSON (<any>); expected <any>",
    ),
    "no text": (
        "s.json",
        b"\xff\xfe\x00",
        "data.splits: {here}/s.json: is no text (<any>); expected JSON or CSV in UTF-8",
    ),
    "no text, CSV": (
        "s.csv",
        b"\xff\xfe\x00",
        "data.splits: {here}/s.csv: is no text (<any>); expected JSON or CSV in UTF-8",
    ),
    "no lists": (
        "s.json",
        '{"train": "0"}',
        "data.splits: {here}/s.json has 'train': expected lists of ids under 'train', "
        "'validation' and 'test'",
    ),
    "no train": (
        "s.json",
        '{"test": ["0"]}',
        "data.splits: {here}/s.json has no ids under 'train'",
    ),
    "a number": ("s.json", "7", "data.splits: {here}/s.json has no ids under 'train'"),
    "unknown ids": (
        "s.json",
        '{"train": ["0", "x"]}',
        "data.path {here}/data: 1 fault in the data; mend them all:\n  {here}/s.json: "
        "'x' under train is in no file's name; expected ids such as '0'",
    ),
    "a case in two": (
        "s.json",
        '{"train": ["0", "1"], "test": ["1"]}',
        "data.path {here}/data: 1 fault in the data; mend them all:\n  {here}/s.json: "
        "case '1' is in train (1) and in test (1); expected a group in one split; move "
        "it",
    ),
    "folds that are no dicts": (
        "s.json",
        "[1, 2]",
        "data.fold: found -1, expected 0 to 1: {here}/s.json has 2 folds",
    ),
    "other columns": (
        "s.csv",
        "name;split\n0;train\n",
        "data.splits: {here}/s.csv has the columns ['name;split'], expected id, and "
        "split or group (the patient) or both, with commas between",
    ),
    "an empty table": (
        "s.csv",
        "",
        "data.splits: {here}/s.csv has the columns [], <any>",
    ),
    "an unknown split": (
        "s.csv",
        "id,split\n0,train\n1,exam\n",
        "data.splits: {here}/s.csv line 3: split 'exam', expected train, validation or "
        "test",
    ),
    "a short row": (
        "s.csv",
        "id,split\n0,train\n1\n",
        "data.splits: {here}/s.csv line 3: split None, expected train, validation or "
        "test",
    ),
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_file_of_splits_that_is_none(place, refused, name):
    file, content, line = SPLITS[name]
    if content is not None:
        content = content if isinstance(content, bytes) else content.encode()
        (place / file).write_bytes(content)
    command = _train(place, f"--config.data.splits={place / file}")
    refused(line, *command, workdir=place / "new")


# ---- What a run left behind: records, checkpoints, scores ----


def _change_record(**parts):
    """Give a function that changes parts of config.json, by dotted key."""

    def change(path):
        record = json.loads(path.read_text())
        for key, value in parts.items():
            *sections, name = key.split("__")
            at = record
            for section in sections:
                at = at[section]
            at[name] = value
        path.write_text(json.dumps(record))

    return change


def _without_key(path):
    record = json.loads(path.read_text())
    del record["config"]["train"]["patch_size"]
    path.write_text(json.dumps(record))


_NO_RECORD = "{here}/run/config.json: not the record of a run (<any>); name another "
_ODD = (
    "{here}/run/config.json: does not describe a run (<any>); restore the file, or use "
    "the version of unet_jax that wrote it"
)
RECORDS = {
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:99]), _NO_RECORD + "--workdir"),
    "empty": (lambda p: p.write_text(""), _NO_RECORD + "--workdir"),
    "no text": (lambda p: p.write_bytes(b"\xff\xfe{}"), _NO_RECORD + "--workdir"),
    "a list": (lambda p: p.write_text("[]"), _NO_RECORD + "--workdir"),
    "a string": (_change_record(config="x"), _NO_RECORD + "--workdir"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), _NO_RECORD + "--workdir"),
    "of a newer kind": (
        _change_record(format=2),
        "{here}/run/config.json: is of format 2, expected at most 1: a newer unet_jax "
        "wrote it; update this one, or name another --workdir",
    ),
    "without a key": (_without_key, _ODD),
    "another type": (_change_record(config__train__steps="many"), _ODD),
    "out of range": (_change_record(config__eval__overlap=7), _ODD),
    "another preprocessing": (_change_record(preprocessing__intensity="x"), _ODD),
    "more preprocessing": (_change_record(preprocessing__new=1), _ODD),
    "no section": (_change_record(config__data=3), _ODD),
}
OF_A_RUN = ["evaluate", "predict", "compare"]


def _of_a_run(mode, place):
    if mode == "predict":
        return _predict(place, place / "data/images"), None
    return [f"--mode={mode}", f"--workdir={place / 'run'}"], place / "run"


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("mode", OF_A_RUN)
def test_a_record_that_is_none(place, refused, mode, name):
    change, line = RECORDS[name]
    change(place / "run/config.json")
    command, workdir = _of_a_run(mode, place)
    refused(line, *command, workdir=workdir)


@pytest.mark.parametrize("name", list(RECORDS)[:7])
def test_training_does_not_go_on_from_no_record(place, refused, name):
    change, line = RECORDS[name]
    change(place / "run/config.json")
    command = _train(place, f"--workdir={place / 'run'}")
    refused(line, *command, workdir=place / "run")


def _arrays(run):
    """The largest file of the only checkpoint: the arrays."""
    files = [path for path in (run / "checkpoints").rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _pickled(run, *, sealed):
    """Put a pickle in the place of every file of the arrays, with a sum that fits."""
    (step,) = [path for path in (run / "checkpoints").iterdir() if path.is_dir()]
    for path in (step / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(pickle.dumps(Malicious()))
    if sealed:
        write_sums(step)


def _other_network(run):
    change = _change_record(
        config__model__features=[2, 6], config__model__base_features=2
    )
    change(run / "config.json")


_STEP = "{here}/run/checkpoints/2"
_AWAY = "remove the folder of this step to go on from another checkpoint"
CHECKPOINTS = {
    "missing": (
        lambda run: shutil.rmtree(run / "checkpoints"),
        "{here}/run/checkpoints: no checkpoint; found none; train first or name the "
        "workdir of a run that has one",
    ),
    "none in its folder": (
        lambda run: shutil.rmtree(run / "checkpoints/2"),
        "{here}/run/checkpoints: no checkpoint; found none; train first or name the "
        "workdir of a run that has one",
    ),
    "cut": (
        lambda run: os.truncate(_arrays(run), 100),
        f"{_STEP}<any>: the file is changed since it was written; {_AWAY}",
    ),
    "a bit flipped": (
        lambda run: _flip(_arrays(run)),
        f"{_STEP}<any>: the file is changed since it was written; {_AWAY}",
    ),
    "a file missing": (
        lambda run: _arrays(run).unlink(),
        f"{_STEP}<any>: the file is missing; {_AWAY}",
    ),
    "no sums": (
        lambda run: (run / "checkpoints/2/sha256.json").unlink(),
        f"{_STEP}/sha256.json: the checkpoint cannot be read (<any>); {_AWAY}",
    ),
    "sums that are none": (
        lambda run: (run / "checkpoints/2/sha256.json").write_text("[1]"),
        f"{_STEP}/sha256.json: the checkpoint cannot be read (<any>); {_AWAY}",
    ),
    "its record cut": (
        lambda run: (run / "checkpoints/2/run/run.json").write_text("{"),
        f"{_STEP}/run/run.json: the checkpoint cannot be read (<any>); {_AWAY}",
    ),
    "a pickle": (
        lambda run: _pickled(run, sealed=False),
        f"{_STEP}<any>: the file is changed since it was written; {_AWAY}",
    ),
    "a pickle with its sum": (
        lambda run: _pickled(run, sealed=True),
        f"{_STEP}: the checkpoint cannot be read (<any>); {_AWAY}",
    ),
    "another network's": (
        _other_network,
        f"{_STEP}: the checkpoint does not fit this network and optimizer: <any>; use "
        "the config of that run, or init_from in a new workdir",
    ),
    "the clusters of the classes cut": (
        lambda run: (run / "clusters.json").write_text("{"),
        "{here}/run/clusters.json: cannot be read (<any>); restore it, or remove it "
        "and start the training command again, which makes it",
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("mode", OF_A_RUN)
def test_a_checkpoint_that_is_none(place, refused, mode, name):
    change, line = CHECKPOINTS[name]
    change(place / "run")
    command, workdir = _of_a_run(mode, place)
    refused(line, *command, workdir=workdir)
    assert not Path("malicious").exists()


def test_training_does_not_start_over_a_lost_checkpoint(place, refused):
    _flip(_arrays(place / "run"))
    refused(
        "{here}/run/checkpoints: no checkpoint is whole (<any>: the file is changed "
        "since it was written); restore one from a copy, or name another --workdir to "
        "start anew",
        *_train(place, f"--workdir={place / 'run'}"),
        workdir=place / "run",
    )


@pytest.mark.parametrize(
    "content",
    ['{"per_case": [', "[]", '{"per_case": 3}', '{"per_case": [{"id": "a"}]}', None],
)
def test_scores_that_are_none(place, refused, content):
    scores = place / "run/test_metrics.json"
    scores.unlink()
    if content is not None:
        scores.write_text(content)
    shutil.copytree(place / "run", place / "run2")
    refused(
        "{here}/run/test_metrics.json: cannot be read (<any>); expected the scores of "
        "a finished run; make them with --mode=evaluate --workdir={here}/run",
        "--mode=compare",
        f"--runs={place}/run,{place}/run2",
        f"--workdir={place}/both",
    )


@pytest.mark.parametrize("mode", ["evaluate", "compare"])
@pytest.mark.parametrize("content", ["cut", "[]", "tampered", "types"])
def test_a_scan_cache_that_is_none_is_made_anew(place, command_line, mode, content):
    """A cache is no input: what is wrong with it is mended without a word."""
    cache = place / "run/dataset.json"
    whole = cache.read_text()
    if content == "cut":
        cache.write_text(whole[: len(whole) // 2])
    elif content == "[]":
        cache.write_text("[]")
    else:
        kept = json.loads(whole)
        for entry in kept["cases"].values():
            entry["traits"]["shape"] = [7, 7] if content == "tampered" else 3
            if content == "tampered":
                entry["stamp"][0][2] = 1
        cache.write_text(json.dumps(kept))
    # The data have a fault that only a new reading finds.
    Image.fromarray(GREY).save(place / "data/images/0.png")
    answer = command_line(f"--mode={mode}", f"--workdir={place}/run")
    assert answer.code == 2
    assert "the data changed since its run began" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert json.loads(cache.read_text())["cases"]["0"]["traits"]["shape"] == [24, 24]


# ---- Pickles ----


def test_a_pickle_in_a_nifti_stays_one(place, command_line):
    volume = nibabel.Nifti1Image(np.ones((SIZE, SIZE, 2), np.int16), np.eye(4))
    code, content = 16, pickle.dumps(Malicious())  # 16 is "pypickle"
    volume.header.extensions.append(nibabel.nifti1.Nifti1Extension(code, content))
    (place / "a.nii").write_bytes(volume.to_bytes())
    answer = command_line(*_predict(place, place / "a.nii"))
    assert answer.code == 0, answer.stderr
    assert not Path("malicious").exists()
    # It does make the file when it is loaded.
    with contextlib.closing(pickle.loads(content)):
        assert Path("malicious").exists()
    Path("malicious").unlink()


def test_no_module_loads_pickles():
    import ast

    import unet_jax

    loaders = {
        "pickle",
        "cPickle",
        "dill",
        "cloudpickle",
        "joblib",
        "shelve",
        "marshal",
    }
    modules = sorted(Path(unet_jax.__file__).parent.rglob("*.py"))
    assert len(modules) > 100
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").partition(".")[0]]
            assert not loaders & set(names), module
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), module
                assert node.value.value is False, module
