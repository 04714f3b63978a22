"""Tests that names with bytes of no character are shown, on streams and in tables."""

import csv
import io

import pytest

from unet_jax.data.files.label_table import write_csv
from unet_jax.runtime.unknown_bytes import let_print, printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"M\xfcller_1.png", "M\\xfcller_1.png"),
        (b"\x83X\x83L.tif", "\\x83X\\x83L.tif"),  # Shift-JIS
        ("Müller_1.png".encode(), "Müller_1.png"),
    ],
)
def test_unknown_bytes_are_shown_with_their_number(name, shown, tmp_path):
    text = name.decode("utf-8", "surrogateescape")  # as Python lists a folder
    assert printable(text) == shown
    write_csv(tmp_path / "table.csv", [{"file": text}])
    rows = csv.DictReader((tmp_path / "table.csv").read_text().splitlines())
    assert [row["file"] for row in rows] == [shown]
    bytes_ = io.BytesIO()
    stream = io.TextIOWrapper(bytes_, encoding="utf-8", write_through=True)
    let_print(stream)
    print(text, file=stream)
    assert bytes_.getvalue().decode() == f"{shown}\n"


def test_a_terminal_of_ascii_shows_all_names_too():
    bytes_ = io.BytesIO()
    stream = io.TextIOWrapper(bytes_, encoding="ascii", write_through=True)
    let_print(stream)
    print("Müller\udcfc", file=stream)
    assert bytes_.getvalue() == b"M\\xfcller\\xfc\n"


def test_a_stream_in_memory_is_left_alone():
    stream = io.StringIO()
    let_print(stream)
    print("M\udcfcller", file=stream)
    assert stream.getvalue() == "M\udcfcller\n"
