import itertools
import json

import numpy as np
import pytest
import tensorstore

from unet_jax.data import case_store
from unet_jax.data.case import Case
from unet_jax.data.case_store import CaseStore
from unet_jax.data.pipeline import make_train_iterator
from unet_jax.data.prepared import PreparedCases
from unet_jax.errors import InputError


class _Scans:
    """Random scans of different sizes."""

    def __init__(self, shapes=((9, 8, 7), (6, 11, 5), (4, 4, 9))):
        self.shapes = shapes
        self.reads = []

    def __len__(self):
        return len(self.shapes)

    def __getitem__(self, index):
        self.reads.append(index)
        rng = np.random.default_rng(index)
        image = rng.normal(size=(*self.shapes[index], 2)).astype(np.float32)
        label = rng.integers(-1, 3, self.shapes[index]).astype(np.int16)
        return Case(f"case{index}", image, label, None, f"case{index}")


def _store(folder, *, contents=("a", "b", "c"), patch=(4, 4, 4), **settings):
    names = [f"case{index}" for index in range(len(contents))]
    return CaseStore(folder, settings, contents, names, patch)


def _batches(source, kept, **options):
    """Draw some batches of crops of volumes, or of their slices."""
    by_slice = options.pop("by_slice", False)
    prepared = PreparedCases(
        source,
        lambda case: (case.image, case.label),
        num_classes=3,
        spatial_dims=3 - by_slice,
        by_slice=by_slice,
        kept=kept,
        coordinates_limit=20,
        **{"cache_bytes": 10**6, "seed": 5, **options},
    )
    iterator = make_train_iterator(
        prepared,
        seed=3,
        global_batch_size=4,
        patch_size=(4, 4, 4)[by_slice:],
        foreground_oversampling=0.5,
    )
    batches = list(itertools.islice(iterator, 6))
    iterator.close()
    return batches


@pytest.mark.parametrize(("by_slice", "adjacent"), [(False, 0), (True, 0), (True, 1)])
@pytest.mark.parametrize("cache_bytes", [0, 5000, 10**6])
def test_crops_are_the_same_with_and_without_a_store(
    tmp_path, by_slice, adjacent, cache_bytes
):
    sliced = {"by_slice": by_slice, "adjacent_slices": adjacent}
    plain = _batches(_Scans(), None, **sliced)
    options = {**sliced, "cache_bytes": cache_bytes}
    store = _store(tmp_path / "kept", patch=(4, 4, 4)[by_slice:])
    assert "0 of 3 cases" in store.report()
    for turn in ("prepared", "kept"):
        source = _Scans()
        batches = _batches(source, store, **options, store=tmp_path / "unused")
        for one, other in zip(plain, batches, strict=True):
            for key in one:
                np.testing.assert_array_equal(one[key], other[key])
        assert sorted(source.reads) == ([0, 1, 2] if turn == "prepared" else [])
    assert not (tmp_path / "unused").exists()
    # Another seed draws other pixels of the classes, of the same cases.
    source = _Scans()
    kept = _batches(source, store, **options, seed=6)
    assert not source.reads
    for one, other in zip(
        _batches(_Scans(), None, **sliced, seed=6), kept, strict=True
    ):
        np.testing.assert_array_equal(one["image"], other["image"])


def test_an_interrupted_preparation_goes_on(tmp_path, monkeypatch):
    write, written = case_store._write, []

    def interrupted(place, array, chunk):
        written.append(place)
        if len(written) == 4:  # the label of the second case
            raise KeyboardInterrupt
        write(place, array, chunk)

    store, scans = _store(tmp_path), _Scans()
    with monkeypatch.context() as patched:
        patched.setattr(case_store, "_write", interrupted)
        store.put(0, scans[0].image, scans[0].label)
        with pytest.raises(KeyboardInterrupt):
            store.put(1, scans[1].image, scans[1].label)
    assert [path.name for path in tmp_path.iterdir()] == [store.place(0).name]
    source = _Scans()
    _batches(source, store)
    assert sorted(source.reads) == [1, 2]
    assert "3 of 3 cases" in store.report()


def test_another_process_may_write_the_same_case(tmp_path, monkeypatch):
    store, case = _store(tmp_path), _Scans()[0]
    write = case_store._write

    def slower(place, array, chunk):
        monkeypatch.setattr(case_store, "_write", write)
        _store(tmp_path).put(0, case.image, case.label)
        write(place, array, chunk)

    monkeypatch.setattr(case_store, "_write", slower)
    store.put(0, case.image, case.label)
    assert [path.name for path in tmp_path.iterdir()] == [store.place(0).name]
    image, label = store.get(0)
    np.testing.assert_array_equal(image, case.image)
    np.testing.assert_array_equal(label, case.label)


def test_a_changed_file_or_setting_makes_another_case(tmp_path):
    case = _Scans()[0]
    store = _store(tmp_path, spacing=1.0)
    store.put(0, case.image, case.label)
    assert store.get(0) is not None
    assert _store(tmp_path, spacing=2.0).get(0) is None
    changed = _store(tmp_path, contents=("A", "b", "c"), spacing=1.0)
    assert changed.get(0) is None
    assert "0 of 3 cases" in changed.report()
    assert "others: 1 of files that have changed, 0 of other" in changed.report()
    assert "others: 0 of files that have changed, 1 of other" in (
        _store(tmp_path, spacing=2.0).report()
    )
    told = json.loads((store.place(0) / "case.json").read_text())
    assert told["case"] == "case0"
    assert told["spacing"] == 1.0
    assert _store(tmp_path, patch=(8, 8, 8), spacing=1.0).get(0) is not None


def test_damage_is_found(tmp_path):
    store, case = _store(tmp_path), _Scans()[0]
    store.put(0, case.image, case.label)
    (file,) = (path for path in store.place(0).glob("image/c/**/*") if path.is_file())
    data = bytearray(file.read_bytes())
    data[10] ^= 1
    file.write_bytes(data)
    image, _ = store.get(0)
    with pytest.raises(InputError, match="a prepared case is damaged; delete its"):
        np.asarray(image)
    file.write_bytes(data[:-1])  # as a power failure leaves it
    assert store.get(0) is None
    assert not store.place(0).exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    case = _Scans()[0]
    with pytest.raises(InputError, match=r"^data.prepared_dir: .* cannot be written"):
        _store(tmp_path / "file").put(0, case.image, case.label)


def test_leftovers_of_killed_runs_are_deleted(tmp_path, monkeypatch):
    (tmp_path / ".writing-a").mkdir(parents=True)
    _store(tmp_path).report()
    assert (tmp_path / ".writing-a").exists()  # another process may be at it
    now = case_store.time.time()
    monkeypatch.setattr(case_store.time, "time", lambda: now + 2 * 24 * 3600)
    _store(tmp_path).report()
    assert not (tmp_path / ".writing-a").exists()


def test_a_crop_reads_its_chunks_alone(tmp_path):
    def read_bytes():
        name = "/tensorstore/kvstore/file/bytes_read"
        found = tensorstore.experimental_collect_matching_metrics(name)
        return sum(value["value"] for one in found for value in one["values"])

    store = _store(tmp_path, patch=(8, 8, 8))
    image = np.random.default_rng(0).random((64, 64, 64, 1), np.float32)
    store.put(0, image, np.zeros(image.shape[:3], np.int16))
    kept, _ = store.get(0)
    before = read_bytes()
    crop = kept[10:18, 20:28, 30:38]
    np.testing.assert_array_equal(crop, image[10:18, 20:28, 30:38])
    # 27 of 4096 chunks of 4 x 4 x 4 pixels, and the table of all of them.
    assert 0 < read_bytes() - before < 27 * 4**4 + 4096 * 16 + 10
    assert read_bytes() - before < image.nbytes / 10


def test_a_slice_of_a_case_is_read_when_it_is_cropped(tmp_path):
    store, case = _store(tmp_path, patch=(4, 4)), _Scans()[0]
    store.put(0, case.image, case.label)
    image, label = store.get(0)
    assert len(label) == 9
    one = image[3]
    assert (one.shape, one.ndim, one.dtype) == ((8, 7, 2), 3, np.float32)
    np.testing.assert_array_equal(one[1:4, 2:6], case.image[3, 1:4, 2:6])
