"""Tests that --mode=verify reads all cases, says what was found, and writes nothing."""

import json

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.data.folder.folders import rng, write_picture, write_pixels, write_set
from unet_jax.commands.verify import verify
from unet_jax.configs import folder as folder_config
from unet_jax.configs import smoke
from unet_jax.errors import InputError
from unet_jax.labels import IGNORE


def _config(path, **data):
    config = folder_config.get_config()
    config.data.path = str(path)
    with config.unlocked():
        config.data.update(data)
    return config


def _line(lines, name):
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return line


def test_every_case_has_a_line_with_what_was_found(tmp_path, capsys):
    for number in range(6):
        name = f"p{number // 2}/{number}.png"
        write_picture(
            tmp_path / "images" / name,
            number,
            mask=tmp_path / "masks" / name,
            channels=3,
        )
    lines = verify(_config(tmp_path))
    assert len(lines) == 6
    out = capsys.readouterr().out.splitlines()
    assert out[:6] == lines
    assert out[-1] == "verified    6 cases, no problems"
    assert _line(lines, "p1/2").partition("; split ")[0] == (
        "p1/2: size 8 x 10, channels 3; dtype uint8; spacing unknown; photometric RGB; "
        "palette -; slope -; orientation upright; mask 0, 1, 2; group p1"
    )
    splits = {line[:2]: line.partition("; split ")[2] for line in lines}
    assert sorted(splits.values()) == ["test", "train", "validation"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "masks"]
    found = "6 cases, median size 8 x 10, no known spacing, 3 channels, uint8"
    assert any(line.startswith(f"fingerprint {found}") for line in out)
    assert not any(line.startswith("ignored") for line in out)


def test_ignored_values_are_told(tmp_path, capsys):
    for number in range(3):
        name = f"{number}.png"
        write_picture(
            tmp_path / "images" / name, number, mask=tmp_path / "masks" / name
        )
    verify(_config(tmp_path, label_map=((0, 0), (1, 1), (2, IGNORE))))
    assert "ignored     mask 2" in capsys.readouterr().out.splitlines()


def test_what_volumes_state_is_told(tmp_path):
    affine = np.array([[0, 0, 2.0, 0], [-1, 0, 0, 0], [0, 1.5, 0, 0], [0, 0, 0, 1]])
    for number in range(4):
        for place in ("images", "masks"):
            pixels = rng(number).integers(0, 9, (6, 5, 4)).astype(np.int16)
            one = nibabel.Nifti1Image(
                pixels if place == "images" else pixels % 2, affine
            )
            if place == "images":
                one.header.set_slope_inter(0.5, 3)
            path = tmp_path / place / f"{number}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            nibabel.save(one, path)
    line = _line(verify(_config(tmp_path)), "0")
    assert "size 4 x 6 x 5, channels 1; dtype float32" in line
    assert "spacing 2 x 1 x 1.5 mm (affine); photometric -" in line
    assert "slope 0.5 + 3; orientation PSR; mask 0, 1" in line


def test_what_pictures_state_is_told(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for number in range(4):
        pixels = rng(number).integers(0, 255, (8, 10)).astype(np.uint16)
        tifffile.imwrite(
            tmp_path / f"images/{number}.tif",
            pixels,
            imagej=True,
            resolution=(2, 2),
            metadata={"unit": "mm"},
        )
        mask = Image.frombytes("P", (10, 8), (pixels % 3).astype(np.uint8).tobytes())
        mask.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
        mask.save(tmp_path / f"masks/{number}.png")
    line = _line(verify(_config(tmp_path)), "1")
    assert "spacing 0.5 x 0.5 mm (ImageJ metadata); photometric MINISBLACK" in line
    assert "palette indices of 1.png;" in line
    for number in range(4):
        tifffile.imwrite(tmp_path / f"images/{number}.tif", pixels + np.uint16(number))
    line = _line(verify(_config(tmp_path, known_spacing=(0.7, 0.7))), "1")
    assert "spacing 0.7 x 0.7 mm (data.known_spacing)" in line


def test_all_problems_are_told_with_their_cases_and_exit_code_2(tmp_path, command_line):
    write_set(tmp_path, count=30, classes=2)
    for number in range(1, 25):
        (tmp_path / f"images/{number}.png").write_bytes(b"")
    write_pixels(tmp_path / "masks/26.png", np.zeros((7, 10), np.uint8))
    (tmp_path / "masks/27.png").unlink()
    arguments = ("--mode=verify", "--config=folder", f"--config.data.path={tmp_path}")
    answer = command_line(*arguments)
    assert answer.code == 2
    lines = answer.stdout.splitlines()
    told = [line for line in lines if line.startswith("  problem: ")]
    assert len(told) == 24 + 2
    at = next(i for i, line in enumerate(lines) if line.startswith("26: size 8 x 10"))
    assert "masks/26.png: size (7, 10); expected (8, 10)" in lines[at + 1]
    assert any(line.startswith("0: ") and "split -" not in line for line in lines)
    errors = answer.stderr.splitlines()
    assert "found 26 problems; please fix all of them:" in errors[0]
    assert len(errors) == 1 + 20 + 1
    assert errors[-1] == "  and 6 more"
    for number in range(1, 28):
        write_picture(
            tmp_path / f"images/{number}.png",
            number,
            mask=tmp_path / f"masks/{number}.png",
            classes=2,
        )
    answer = command_line(*arguments)
    assert (answer.code, answer.stderr) == (0, "")


def test_a_config_that_cannot_be_used_is_refused_first(tmp_path):
    write_set(tmp_path)
    with pytest.raises(InputError, match=r"data.validation_fraction"):
        verify(_config(tmp_path, validation_fraction=7.0))


def test_a_set_that_is_prepared_is_read_too(capsys):
    lines = verify(smoke.get_config())
    splits = {line.rpartition("split ")[2] for line in lines}
    assert splits == {"train", "validation", "test"}
    assert "dtype uint8; spacing 1 x 1 x 1 mm; group" in lines[0]
    assert capsys.readouterr().out.splitlines()[:-1] == lines


def test_the_splits_of_a_workdir_are_shown(tmp_path):
    folder, run = write_set(tmp_path / "set", classes=2), tmp_path / "run"
    run.mkdir()
    ids = {"train": ["0", "1"], "validation": ["3"], "test": ["5"]}
    dataset = {split: {"ids": found, "sha256": ""} for split, found in ids.items()}
    record = {
        "config": {"data": {"source": "folder"}},
        "preprocessing": {},
        "dataset": dataset,
        "versions": {},
    }
    (run / "config.json").write_text(json.dumps(record))
    lines = verify(_config(folder), run)
    found = {line[0]: line.rpartition(" ")[2] for line in lines}
    assert found == {"0": "train", "1": "train", "3": "validation", "5": "test"}
    assert [path.name for path in run.iterdir()] == ["config.json"]
