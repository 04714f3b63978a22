import re

import pytest

from unet_jax.report.color_tables import write_color_tables

NAMES = ("background", "left  lung", 'so-called "node"\nof x', " ")
COLORS = ((0, 0, 0), (230, 57, 70), (1, 2, 3), (255, 0, 128))


@pytest.fixture
def lines(tmp_path):
    write_color_tables(tmp_path, class_names=NAMES, class_colors=COLORS)

    def of(name):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert text.endswith("\n")
        return [line for line in text.splitlines() if not line.startswith("#")]

    return of


def test_slicer_reads_six_words_a_line(lines):
    rows = [line.split(" ") for line in lines("colors.ctbl")]
    assert [row[1] for row in rows] == [
        *("background", "left_lung", 'so-called_"node"_of_x', "class_3")
    ]
    numbers = [(int(row[0]), *map(int, row[2:])) for row in rows]
    assert numbers == [
        (index, *color, 255 if index else 0) for index, color in enumerate(COLORS)
    ]


def test_itk_snap_reads_seven_numbers_and_a_name_in_quotation_marks(lines):
    rows = [
        re.fullmatch(r'((?:\d+ ){7})"([^"]+)"', line)
        for line in lines("colors.itksnap.txt")
    ]
    assert [row[2] for row in rows] == [
        *("background", "left lung", "so-called 'node' of x", "class 3")
    ]
    assert [tuple(map(int, row[1].split())) for row in rows] == [
        (index, *color, *[int(index > 0)] * 3) for index, color in enumerate(COLORS)
    ]


def test_each_class_has_a_color(tmp_path):
    with pytest.raises(ValueError, match="shorter"):
        write_color_tables(tmp_path, class_names=NAMES, class_colors=COLORS[:2])
