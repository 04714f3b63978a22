"""The figures of docs/gallery.md exist and are small; its commands name configs."""

import pathlib
import re

import pytest
from PIL import Image

from unet_jax.commands import compare

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "gallery.md").read_text()


def test_every_picture_is_there_small_and_described():
    pictures = re.findall(r"!\[(.+?)\]\((.+?)\)", PAGE)
    assert {path for _, path in pictures} == {
        f"gallery/{file.name}" for file in (ROOT / "docs" / "gallery").iterdir()
    }
    for _, path in pictures:
        file = ROOT / "docs" / path
        assert file.stat().st_size < 300_000, path
        with Image.open(file) as picture:
            assert picture.format == "PNG"


def test_every_command_names_a_config_that_is_there():
    configs = re.findall(r"--config=(\S+)", PAGE)
    assert {"configs/bone.py", "configs/lesion.py"} <= set(configs)
    assert all((ROOT / config).is_file() for config in configs)


def test_it_says_what_the_pictures_are():
    text = " ".join(PAGE.split())
    for said in ("stands in for a femur", "lesions are synthetic", "no claim about"):
        assert said in text


@pytest.mark.parametrize("part", ["Brain", "Bone"])
def test_the_tables_hold_every_method(part):
    section = PAGE.split(f"\n## {part}\n")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line[:2] == "| "]
    methods = {row[0].removeprefix("| ") for row in rows if row[1] != "---:"}
    assert methods - {"method"} == set(compare.method_names(()))
    assert {len(row) for row in rows} == {7}
    best, second = rows[2:4]
    assert best[0] == "| network"
    assert float(best[1]) > float(second[1])
