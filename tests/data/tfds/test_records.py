"""Tests records on disk: damage, fingerprint, several files."""

import os
import shutil

import pytest

from tests.data.tfds.small_sets import SQUARE, brain_slices, square
from unet_jax.data.tfds.source import TfdsSource, prepare
from unet_jax.errors import InputError


def _built(tmp_path):
    prepare("mni152_tissue", tmp_path)
    return tmp_path / "mni152_tissue" / "1.0.0"


def test_several_files_in_one_split(store, tmp_path):
    rows = [(str(index), square(index)) for index in range(7)]
    store(tmp_path, name="many", features=SQUARE, splits={"train": rows}, shards=3)
    source = TfdsSource(name="many", split="train", data_dir=tmp_path, num_classes=2)
    cases = [source[index] for index in range(7)]
    assert sorted(int(case.image[0, 0, 0]) for case in cases) == list(range(7))
    assert len({case.id for case in cases}) == 7
    assert {case.id.split("-")[1] for case in cases} == {"0", "1", "2"}


def test_fingerprint(tmp_path):
    _built(tmp_path)
    found = brain_slices(tmp_path).fingerprint
    assert len(found.pop("sha256")) == 64
    assert found == {
        "name": "mni152_tissue",
        "version": "1.0.0",
        "split": "test",
        "records": 22,
        "splits": {"train": 91, "validation": 17, "test": 22},
    }


def test_fingerprint_tells_contents_of_equal_size_apart(tmp_path, store):
    for value in (1, 2):
        rows = [("a", square(value))]
        store(tmp_path / str(value), name="s", features=SQUARE, splits={"train": rows})
    one, two = (
        TfdsSource(name="s", split="train", data_dir=tmp_path / part, num_classes=2)
        for part in ("1", "2")
    )
    assert one.fingerprint["records"] == two.fingerprint["records"]
    assert one.fingerprint["sha256"] != two.fingerprint["sha256"]


def test_a_set_stored_as_tfrecord(tmp_path):
    info = _built(tmp_path) / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(
        InputError, match=r"stored as tfrecord, expected array_record .*convert_format"
    ):
        brain_slices(tmp_path)


@pytest.mark.parametrize("damage", ["half", "tail", "empty", "missing"])
def test_a_damaged_file_is_refused_at_once_and_can_be_fixed(tmp_path, damage):
    folder = _built(tmp_path)
    (file,) = folder.glob("*-test.array_record-*")
    size = file.stat().st_size
    if damage == "missing":
        file.unlink()
    else:
        os.truncate(file, {"half": size // 2, "tail": size - 10, "empty": 0}[damage])
    with pytest.raises(InputError) as error:
        brain_slices(tmp_path)
    message = str(error.value)
    assert message.startswith(f"{file}: record 0 cannot be read; the file is missing,")
    assert message.endswith(f"move {folder} away: the next run builds it again")
    assert "\n" not in message
    shutil.rmtree(folder)
    assert len(brain_slices(tmp_path)) == 22


def test_a_flipped_byte_is_refused_where_it_is_read(tmp_path):
    folder = _built(tmp_path)
    (file,) = folder.glob("*-test.array_record-*")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"record \d+ cannot be read"):
        brain_slices(tmp_path, volume_key="volume", slice_index_key="slice_index")


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_damaged_information_is_refused(tmp_path, name, damage):
    folder = _built(tmp_path)
    if damage == "missing":
        (folder / name).unlink()
    else:
        os.truncate(folder / name, 100)
    with pytest.raises(InputError, match=r"missing or damaged .*move ") as error:
        brain_slices(tmp_path)
    assert str(error.value).startswith(f"{folder}: dataset_info.json or features.json")


def test_records_of_another_set_are_refused(store, tmp_path):
    folder = _built(tmp_path)
    (file,) = folder.glob("*-test.array_record-*")
    other = store(
        tmp_path, name="o", features=SQUARE, splits={"test": [("a", square(1))] * 1}
    )
    shutil.copy(next(other.glob("*.array_record-*")), file)
    with pytest.raises(InputError, match="does not have the features of features"):
        brain_slices(tmp_path)[0]
