"""Tests how often the files of a folder are read before the first step."""

import collections

import numpy as np
import pytest
import tifffile

from tests.data.folder.folders import open_set, rng, write_picture, write_set
from unet_jax.configs import folder as folder_config
from unet_jax.data.class_fractions import class_fractions
from unet_jax.data.files import read as reader
from unet_jax.data.folder.open import open_folder
from unet_jax.data.folder.options import FolderOptions
from unet_jax.data.memory import CaseMemory
from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import InputError
from unet_jax.experiment.complete import complete_config
from unet_jax.experiment.data import (
    create_memory,
    create_prepared_cases,
    fit_preprocessing,
    open_dataset,
)
from unet_jax.experiment.kept_cases import kept_cases

SPLITS = ("train", "validation", "test")


@pytest.fixture
def reads(monkeypatch):
    """Count how often each file is decoded."""
    counts: collections.Counter = collections.Counter()
    decode = reader._decode

    def counted(path, **options):
        counts[path.parent.name + "/" + path.name] += 1
        return decode(path, **options)

    monkeypatch.setattr(reader, "_decode", counted)
    return counts


def _volumes(folder, count=6, size=(12, 10, 11)):
    """Write volumes with masks of three classes."""
    for number in range(count):
        write_picture(
            folder / f"images/{number}.nii.gz",
            number,
            mask=folder / f"masks/{number}.nii.gz",
            size=size,
        )
    return folder


def _start(path, workdir, *, memory=True, **changes):
    """Run the steps of a start that read data, up to the first batch."""
    config = folder_config.get_config()
    config.update_from_flattened_dict(
        {"data.path": str(path), "train.batch_size": 2, "train.memory_gib": 0.001}
        | changes
    )
    kept = create_memory(config) if memory else None
    open_dataset(config, workdir, memory=kept)  # on the first process
    dataset = open_dataset(config, workdir, memory=kept)
    config = complete_config(config, dataset)
    dataset = open_dataset(config, workdir, memory=kept)  # slices may have an axis now
    source = dataset.source("train")
    preprocessing = fit_preprocessing(config, source)
    fractions = {
        split: class_fractions(dataset.source(split), config.data.class_names)
        for split in SPLITS
    }
    store = workdir / "prepared"
    prepared = create_prepared_cases(config, source, preprocessing, store)
    cases = [prepared.case(index) for index in range(len(source))]
    source[0]  # the sample of validation
    prepared[0]
    return dataset, preprocessing, fractions, cases, source


def _equal(one, two):
    """Check that two starts give the same bits."""
    assert one[0].fingerprint == two[0].fingerprint
    assert one[1] == two[1]
    assert one[2] == two[2]
    for (image, label), (other, same) in zip(one[3], two[3], strict=True):
        np.testing.assert_array_equal(image, other, strict=True)
        np.testing.assert_array_equal(label, same, strict=True)


@pytest.mark.parametrize("intensity", ["zscore", "percentile"])
@pytest.mark.parametrize("dims", [2, 3])
def test_every_file_is_read_once(tmp_path, reads, intensity, dims):
    changes = {"data.intensity": intensity, "data.dims": dims}
    folder = _volumes(tmp_path / "set")
    start = _start(folder, tmp_path / "one", **changes)
    assert set(reads.values()) == {1}
    assert len(reads) == 12
    assert start[4].held_bytes == 0  # all of them are prepared
    reads.clear()
    again = _start(folder, tmp_path / "two", memory=False, **changes)
    # To scan, (to sample,) to prepare; and the first case for the sample of validation.
    assert max(reads.values()) == (4 if intensity == "percentile" else 3)
    _equal(start, again)


def test_prepared_cases_are_kept_between_runs(tmp_path, reads, capsys):
    folder = _volumes(tmp_path / "set")
    changes = {"data.prepared_dir": str(tmp_path / "kept"), "data.dims": 3}
    plain = _start(folder, tmp_path / "one", **{"data.dims": 3})
    start = _start(folder, tmp_path / "two", **changes)
    count = len(start[4])
    assert f"data.prepared_dir: 0 of {count} cases" in capsys.readouterr().out
    _equal(plain, start)
    reads.clear()
    again = _start(folder, tmp_path / "two", **changes)
    assert f"data.prepared_dir: {count} of {count} cases" in capsys.readouterr().out
    assert len(reads) == 2  # image and mask of the sample of validation
    _equal(plain, again)
    _start(folder, tmp_path / "two", **changes, **{"data.intensity": "percentile"})
    assert f"{count} of other settings" in capsys.readouterr().out


def test_prepared_cases_are_of_files_that_have_not_changed(tmp_path):
    def contents(folder=tmp_path / "set", **options):
        source = open_set(folder, **options).source("train")
        return {source.cases[i][0].id: source.content(i) for i in range(len(source))}

    write_set(tmp_path / "set")
    found = contents()
    assert contents() == found
    assert len(set(found.values())) == len(found)
    changes = {"known_spacing": (0.5, 0.5)}, {"label_map": ((0, 0), (1, 1), (2, 1))}
    for options in changes:
        assert not set(contents(**options).values()) & set(found.values())
    name = next(iter(found))
    write_picture(tmp_path / f"set/images/{name}.png", 99)
    changed = contents()
    assert [one for one in found if found[one] != changed[one]] == [name]
    (tmp_path / "set").rename(tmp_path / "moved")
    assert contents(tmp_path / "moved") == changed


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("gs://bucket/kept", "found gs://bucket/kept, expected a folder of this"),
        ("kept", "images that are drawn from label maps cannot be kept"),
    ],
)
def test_prepared_cases_that_cannot_be_kept(folder, message, tmp_path):
    config = folder_config.get_config()
    config.data.prepared_dir = folder
    config.data.class_names, config.train.patch_size = ("a", "b", "c"), (4, 4)
    source = open_set(write_set(tmp_path / "set")).source("train")
    preprocessing = Preprocessing(
        network_dims=2,
        slice_axis=2,
        spacing=None,
        size=None,
        crop_nonzero=False,
        intensity="zscore",
        channels=1,
    )
    cases = [source[0]]  # a source that does not know its content
    with pytest.raises(InputError, match=f"^data.prepared_dir: {message}"):
        create_prepared_cases(config, cases, preprocessing, tmp_path)
    if folder == "kept":
        with pytest.raises(InputError, match="predictions of data"):
            kept_cases(config, source, preprocessing, whole=False)


def test_without_room_the_files_are_read_again_and_all_is_the_same(tmp_path, reads):
    folder = write_set(tmp_path / "set")
    start = _start(folder, tmp_path / "one")
    assert set(reads.values()) == {1}
    reads.clear()
    none = _start(folder, tmp_path / "two", **{"data.cache_gib": 0.0})
    train = {f"images/{case_id}.png" for case_id in none[0].fingerprint["train"]["ids"]}
    assert {name for name, count in reads.items() if count > 1} == {
        *train,
        *(name.replace("images", "masks") for name in train),
    }
    assert sorted(reads.values())[-3:] == [2, 3, 3]
    _equal(start, none)


def test_a_second_start_reads_the_training_files_once(tmp_path, reads):
    folder = _volumes(tmp_path / "set")
    changes = {"data.intensity": "percentile"}
    first = _start(folder, tmp_path / "run", **changes)
    reads.clear()
    second = _start(folder, tmp_path / "run", **changes)
    assert set(reads.values()) == {1}
    assert len(reads) == 2 * len(second[4])
    _equal(first, second)


def test_fractions_are_those_of_the_pixels(tmp_path, reads):
    folder = write_set(tmp_path / "set", classes=4)
    dataset, _, fractions, _, _ = _start(folder, tmp_path / "run")
    for split in SPLITS:
        source = dataset.source(split)
        cases = [source[index] for index in range(len(source))]
        assert class_fractions(cases, dataset.class_names) == fractions[split]


def test_fractions_of_slabs_and_of_ignored_values(tmp_path):
    image = rng(0).integers(0, 255, (60, 30)).astype(np.uint8)
    mask = np.zeros((60, 30), np.uint8)
    mask[2:50, 3:20] = 1
    mask[5:9] = 255
    mask[50:55, 3:9] = 1
    for name, pixels in (("images", image), ("masks", mask)):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "a.tif", pixels)
    dataset = open_folder(
        FolderOptions(path=str(tmp_path), label_map=((0, 0), (1, 1), (255, -1))),
        seed=0,
        num_threads=1,
        scan_cache=None,
    )
    for split in SPLITS:
        source = dataset.source(split)
        expected = class_fractions([source[0]], dataset.class_names)
        assert class_fractions(source, dataset.class_names) == expected
        assert source.facts(0) == (source[0].id, 2, 1, None)


def test_only_training_cases_are_kept(tmp_path):
    memory = CaseMemory(10**9)
    dataset = open_folder(
        FolderOptions(path=str(write_set(tmp_path, count=10))),
        seed=0,
        num_threads=2,
        scan_cache=None,
        memory=memory,
    )
    cases = [dataset.source("train")[i] for i in range(len(dataset.source("train")))]
    # An image and its mask have a byte each per pixel.
    assert memory.held_bytes == 2 * 80 * len(cases)
    for split in ("validation", "test"):
        source = dataset.source(split)
        for index in range(len(source)):
            source[index]
    assert memory.held_bytes == 2 * 80 * len(cases)


def test_pages_of_a_stack_are_read_again_where_their_axis_changed(tmp_path, reads):
    for number in range(4):
        write_picture(
            tmp_path / f"images/{number}.tif",
            number,
            mask=tmp_path / f"masks/{number}.tif",
            size=(5, 8, 9),
        )
    memory = CaseMemory(10**9)

    def opened(axis):
        return open_folder(
            FolderOptions(path=str(tmp_path), slice_axis=axis),
            seed=0,
            num_threads=1,
            scan_cache=tmp_path / "dataset.json",
            memory=memory,
        )

    assert opened(2).source("train")[0].image.shape == (8, 9, 5, 1)
    reads.clear()
    assert opened(0).source("train")[0].image.shape == (5, 8, 9, 1)
    assert set(reads.values()) == {1}
