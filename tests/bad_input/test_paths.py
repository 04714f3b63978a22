"""Tests paths to nothing, and outputs that would overwrite files."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bad_input.contents import GREY, Malicious
from tests.bad_input.given import SIZE, predict_command, train_command

pytestmark = pytest.mark.slow  # some 300 commands in all

# ---- Paths ----

_OF_A_RUN = "expected the folder of a run; train one first"
_NO_DATA = "expected a folder with images and masks"
PATHS = {
    "predict: nothing there": (
        "{here}/no.png: no such file or folder; give an image or a folder",
        lambda here: predict_command(here, here / "no.png"),
    ),
    "predict: an empty folder": (
        "{here}/empty: no image among 0 files; expected one of .png .jpg .jpeg .bmp "
        ".gif .tif .tiff .nii.gz .nii <any>",
        lambda here: predict_command(here, here / "empty"),
    ),
    "predict: another kind of file": (
        "{here}/run/config.json: unknown suffix '.json'; expected one of .png .jpg "
        ".jpeg .bmp .gif .tif .tiff .nii.gz .nii <any>; convert it to one of these",
        lambda here: predict_command(here, here / "run/config.json"),
    ),
    "predict: an array with pickles": (
        "{here}/pickled.npy: unknown suffix '.npy'; expected one of .png .jpg .jpeg "
        ".bmp .gif .tif .tiff .nii.gz .nii <any>; convert it to one of these",
        lambda here: predict_command(here, here / "pickled.npy"),
    ),
    "predict: the output is a file": (
        "--output {here}/file: {here}/file is a file, expected a folder; name another",
        lambda here: [
            *predict_command(here, here / "data/images"),
            f"--output={here}/file",
        ],
    ),
    "predict: the output is in a file": (
        "--output {here}/file/a: {here}/file is a file, expected a folder; name "
        "another",
        lambda here: [
            *predict_command(here, here / "data/images"),
            f"--output={here}/file/a",
        ],
    ),
    "predict: the output is the input": (
        "--output {here}/data/masks/../images: is the folder of the images, whose "
        "files could be overwritten; name another folder",
        lambda here: [
            *predict_command(here, here / "data/images/1.png", "--overwrite"),
            f"--output={here}/data/masks/../images",
        ],
    ),
    "predict: no run": (
        f"--workdir {{here}}/empty: found no config.json, {_OF_A_RUN}",
        lambda here: [
            *predict_command(here, here / "data/images"),
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
                *train_command(here)[
                    : len(train_command(here)) if mode == "train" else 0
                ],
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
        lambda here: train_command(here, "--config.data.path="),
    ),
    "train: no such data": (
        f"data.path: {{here}}/no is nothing, {_NO_DATA}",
        lambda here: train_command(here, f"--config.data.path={here / 'no'}"),
    ),
    "train: the data are a file": (
        f"data.path: {{here}}/file is a file, {_NO_DATA}",
        lambda here: train_command(here, f"--config.data.path={here / 'file'}"),
    ),
    "train: the data are an empty folder": (
        "data.path: {here}/empty holds 0 images and 0 masks, but no image has "
        "a mask; expected files (<any>) of equal names in two folders such as "
        "images/ and masks/, or masks with a suffix such as _mask; set data.images and "
        "data.masks, or data.mask_suffix",
        lambda here: train_command(here, f"--config.data.path={here / 'empty'}"),
    ),
    "train: no such folder of masks": (
        "data.masks: {here}/data/truth is no folder; expected a folder in data.path",
        lambda here: train_command(here, "--config.data.masks=truth"),
    ),
    "train: the workdir is the data": (
        "--workdir {here}/data: is data.path, the folder of the images; name another",
        lambda here: train_command(here, f"--workdir={here / 'data'}"),
    ),
    "train: weights of no run": (
        f"--workdir {{here}}/empty: found no config.json, {_OF_A_RUN}",
        lambda here: train_command(here, f"--config.init_from={here / 'empty'}"),
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
    "there", ["0.png", "overlays/1.png", "classes.csv", "1.geojson"]
)
def test_predict_asks_before_it_replaces(place, refused, command_line, there):
    target = place / "out" / there
    target.parent.mkdir(parents=True)
    target.write_text("mine")
    command = predict_command(place, place / "data/images", "--contours")
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
        "{here}/out/0.png: is an input image, which is never overwritten; choose "
        "another output folder",
        *predict_command(place, place / "in", "--overwrite"),
    )


def test_predict_does_not_take_a_folder_for_a_file(place, refused):
    (place / "out/0.png").mkdir(parents=True)
    refused(
        "{here}/out/0.png: is a folder; expected nothing, or a file to replace; choose "
        "another output folder",
        *predict_command(place, place / "data/images", "--overwrite"),
    )
