import itertools
import json
import threading
import time

import numpy as np
import pytest

from unet_jax.data.case import Case
from unet_jax.data.pipeline import make_train_iterator
from unet_jax.data.prepared import PreparedCases
from unet_jax.errors import InputError
from unet_jax.labels import IGNORE

PATCH = (5, 4)


class _Pictures:
    """Pictures of different sizes; a pixel's value encodes its case and position."""

    def __init__(self, count=11, spatial=None):
        self.count = count
        self.spatial = spatial
        self.reads = []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.reads.append(index)
        shape = self.spatial or (6 + index % 3, 5 + index % 2)
        places = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        image = np.stack([np.full(shape, index, np.float32), places], axis=-1)
        label = (places % 3).astype(np.int16)
        return Case(f"case{index}", image, label, None, f"case{index}")


def _as_is(case):
    return case.image, case.label


def _prepared(source=None, *, prepare=_as_is, **options):
    options = {
        "num_classes": 3,
        "spatial_dims": 2,
        "by_slice": False,
        "cache_bytes": 10**6,
        "seed": 0,
        **options,
    }
    return PreparedCases(_Pictures() if source is None else source, prepare, **options)


def _iterator(prepared=None, **options):
    options = {
        "seed": 3,
        "global_batch_size": 4,
        "patch_size": PATCH,
        "foreground_oversampling": 0.5,
        **options,
    }
    return make_train_iterator(_prepared() if prepared is None else prepared, **options)


def _take(iterator, count):
    batches = list(itertools.islice(iterator, count))
    iterator.close()
    return batches


def _global(count, processes, state=None, **options):
    """Join the batches of all processes in their order."""
    parts = []
    for index in range(processes):
        iterator = _iterator(process_index=index, process_count=processes, **options)
        if state is not None:
            iterator.set_state(state)
        parts.append(_take(iterator, count))
    return [
        {key: np.concatenate([part[key] for part in step]) for key in step[0]}
        for step in zip(*parts, strict=True)
    ]


def _assert_equal(actual, expected):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def _cases(batches):
    """List the case of each example of some batches."""
    return [int(number) for batch in batches for number in batch["image"][:, 0, 0, 0]]


def test_shapes_dtypes_and_indices():
    batches = _take(_iterator(), 3)
    for number, batch in enumerate(batches):
        assert batch["image"].shape == (4, *PATCH, 2)
        assert batch["image"].dtype == np.float32
        assert batch["label"].shape == (4, *PATCH)
        assert batch["label"].dtype == np.int32
        assert batch["example_index"].dtype == np.int32
        assert list(batch["example_index"]) == list(range(4 * number, 4 * number + 4))
        np.testing.assert_array_equal(batch["label"], batch["image"][..., 1] % 3)


def test_a_batch_says_which_classes_are_labelled_where_some_are_not():
    assert "labelled" not in _take(_iterator(), 1)[0]
    source = _Pictures()
    source.labelled_classes = lambda index: (0, 2) if index % 2 else None
    for batch in _take(_iterator(_prepared(source)), 3):
        cases = batch["image"][:, 2, 2, 0].astype(int)
        expected = np.ones((4, 3), bool)
        expected[cases % 2 == 1, 1] = False
        np.testing.assert_array_equal(batch["labelled"], expected)


@pytest.mark.parametrize("processes", [2, 4])
def test_global_batches_are_the_same_for_any_number_of_processes(processes):
    _assert_equal(_global(9, processes), _global(9, 1))


@pytest.mark.parametrize(
    ("num_threads", "prefetch_batches"), [(0, 4), (1, 1), (4, 2), (5, 9), (2, 0)]
)
def test_batches_are_the_same_for_any_number_of_threads(num_threads, prefetch_batches):
    batches = _global(9, 1, num_threads=num_threads, prefetch_batches=prefetch_batches)
    _assert_equal(batches, _global(9, 1))


def test_batches_do_not_depend_on_what_is_cached():
    source = _Pictures()
    prepared = _prepared(source, cache_bytes=0)
    _assert_equal(_take(_iterator(prepared), 9), _take(_iterator(), 9))
    assert len(source.reads) > len(source)


@pytest.mark.parametrize("consumed", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_resumes_at_any_batch_in_any_number_of_processes(consumed, processes):
    whole = _global(12, 1)
    iterator = _iterator(process_index=1, process_count=2, prefetch_batches=6)
    for _ in range(consumed):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    iterator.close()
    assert state["batches"] == consumed
    resumed = _global(12 - consumed, processes, state)
    _assert_equal(resumed, whole[consumed:])


def test_state_belongs_to_the_consumed_batch_not_to_the_prefetched_one():
    source = _Pictures(count=40)
    iterator = _iterator(_prepared(source), num_threads=2, prefetch_batches=8)
    next(iterator)
    deadline = time.monotonic() + 20
    while len(set(source.reads)) < 32 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(set(source.reads)) >= 32  # far ahead of the four that were consumed
    assert iterator.get_state()["batches"] == 1
    iterator.close()


def test_set_state_works_in_the_middle_of_an_iteration():
    iterator = _iterator()
    state = iterator.get_state()
    first = [next(iterator) for _ in range(5)]
    iterator.set_state(state)
    _assert_equal(_take(iterator, 5), first)


def test_state_of_other_data_or_batches_is_refused():
    state = _iterator().get_state()
    for other, message in [
        (_iterator(global_batch_size=8), "global_batch_size = 4, but this run has 8"),
        (_iterator(seed=4), "seed = 3, but this run has 4"),
        (_iterator(_prepared(_Pictures(12))), "num_examples = 11, but this run has 12"),
    ]:
        with pytest.raises(InputError, match=message):
            other.set_state(state)


def test_each_epoch_has_every_example_once_in_another_order():
    source = _Pictures()
    cases = _cases(_take(_iterator(_prepared(source)), 11))
    epochs = [cases[start : start + 11] for start in range(0, 44, 11)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(11))] * 4
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert sorted(source.reads) == list(range(11))  # each prepared once


def test_the_crops_of_an_example_differ_between_epochs():
    prepared = _prepared(_Pictures(count=1, spatial=(40, 40)))
    batches = _take(_iterator(prepared, foreground_oversampling=0.0), 3)
    corners = [place for batch in batches for place in batch["image"][:, 0, 0, 1]]
    assert len(set(corners)) > 9


def test_seeds_give_other_orders_and_neighbours_have_no_epoch_in_common():
    def epochs(seed):
        cases = _cases(_take(_iterator(seed=seed), 11))
        return {tuple(cases[start : start + 11]) for start in range(0, 44, 11)}

    seen = [epochs(seed) for seed in range(4)]
    assert len(set.union(*seen)) == 16
    _assert_equal(_global(5, 1, seed=2), _global(5, 1, seed=2))


def test_batches_larger_than_the_data():
    prepared = _prepared(_Pictures(count=3))
    (batch,) = _take(_iterator(prepared, global_batch_size=9), 1)
    assert np.bincount(_cases([batch])).tolist() == [3, 3, 3]


def test_sizes_may_differ_and_padding_is_ignored():
    batches = _take(_iterator(patch_size=(9, 9)), 6)
    for batch in batches:
        padding = batch["label"] == IGNORE
        assert padding.any(axis=(1, 2)).all()
        assert not batch["image"][padding].any()
        sizes = (~padding).sum(axis=(1, 2))
        numbers = batch["image"][..., 0].max(axis=(1, 2)).astype(int)
        expected = [(6 + number % 3) * (5 + number % 2) for number in numbers]
        assert sizes.tolist() == expected


def test_fraction_of_crops_centred_on_a_class():
    class Dots(_Pictures):
        def __getitem__(self, index):
            case = super().__getitem__(index)
            case.label[:] = 0
            case.label[30, 10 + index] = 2
            return case

    prepared = _prepared(Dots(count=5, spatial=(61, 61)))
    batches = _take(
        _iterator(prepared, patch_size=(3, 3), foreground_oversampling=1 / 3), 120
    )
    fraction = np.mean([batch["label"][:, 1, 1] == 2 for batch in batches])
    assert abs(fraction - 1 / 3) < 0.07


class _Stacks(_Pictures):
    """Volumes of two to four slices; only their last slice has class 2."""

    def __getitem__(self, index):
        self.reads.append(index)
        depth = 2 + index % 3
        image = np.zeros((depth, 9, 9, 1), np.float32)
        image += 10 * index + np.arange(depth, dtype=np.float32)[:, None, None, None]
        label = np.zeros((depth, 9, 9), np.int8)
        label[-1, 4, 4] = 2
        return Case(f"stack{index}", image, label, None, f"stack{index}")


@pytest.mark.parametrize("cache_bytes", [0, 10**6])
def test_slices_are_examples_centred_on_their_own_classes(cache_bytes):
    source = _Stacks(count=3)
    prepared = _prepared(source, by_slice=True, num_threads=2, cache_bytes=cache_bytes)
    assert len(prepared) == 2 + 3 + 4
    assert sorted(source.reads) == [0, 1, 2]
    batches = _take(
        _iterator(
            prepared, global_batch_size=9, patch_size=(3, 3), foreground_oversampling=1
        ),
        3,
    )
    for batch in batches:
        slices = batch["image"][:, 0, 0, 0].astype(int)
        # A slice without a class gives its turn to one of its volume that has one.
        assert sorted(slices) == [1] * 2 + [12] * 3 + [23] * 4
        assert (batch["label"][:, 1, 1] == 2).all()
    plain = _take(
        _iterator(
            prepared, global_batch_size=9, patch_size=(3, 3), foreground_oversampling=0
        ),
        1,
    )
    slices = plain[0]["image"][:, 0, 0, 0].astype(int)
    assert sorted(slices) == [0, 1, 10, 11, 12, 20, 21, 22, 23]


def test_whole_volumes_for_a_3d_network():
    prepared = _prepared(_Stacks(count=2), spatial_dims=3)
    (batch,) = _take(_iterator(prepared, patch_size=(3, 5, 4)), 1)
    assert batch["image"].shape == (4, 3, 5, 4, 1)
    assert batch["label"].shape == (4, 3, 5, 4)


def test_cache_keeps_its_budget_and_drops_the_least_recently_used():
    source = _Pictures(count=4, spatial=(10, 10))
    one_case = 100 * 2 * 4 + 100 * 2
    prepared = _prepared(source, cache_bytes=2 * one_case + 1)
    for index in (0, 1, 0, 2, 0, 1):
        prepared.case(index)
    assert source.reads == [0, 1, 2, 1]


def test_a_case_larger_than_the_budget_is_not_read_for_each_draw():
    source = _Pictures(count=1, spatial=(10, 10))
    prepared = _prepared(source, cache_bytes=1)
    for _ in range(5):
        prepared[0]
    assert source.reads == [0]


def test_threads_prepare_a_case_once():
    started = threading.Barrier(4)
    prepares = []

    def prepare(case):
        prepares.append(case.id)
        time.sleep(0.05)
        return case.image, case.label

    prepared = _prepared(_Pictures(count=1), prepare=prepare)
    found = []

    def ask():
        started.wait()
        found.append(prepared.case(0))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert prepares == ["case0"]
    assert len({id(image) for image, _ in found}) == 1


@pytest.mark.parametrize("num_threads", [0, 3])
def test_errors_of_threads_are_raised_by_next(num_threads):
    def prepare(case):
        if case.id == "case5":
            raise InputError("scan5.nii.gz: truncated")
        return case.image, case.label

    iterator = _iterator(_prepared(prepare=prepare), num_threads=num_threads)
    with pytest.raises(InputError) as caught:
        _take(iterator, 4)
    assert str(caught.value) == "scan5.nii.gz: truncated"
    iterator.close()


def test_batch_that_does_not_divide_is_refused():
    with pytest.raises(
        InputError, match=r"train.batch_size = 6 does not divide among 4 processes"
    ):
        _iterator(global_batch_size=6, process_count=4)
    with pytest.raises(InputError, match=r"train.batch_size = 0"):
        _iterator(global_batch_size=0)


def _label(values):
    def prepare(case):
        return case.image, np.full(case.label.shape, values, np.int16)

    return prepare


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": _Pictures(count=0)}, "training split: 0 cases"),
        (
            {"prepare": _label(3)},
            "'case0': label values from 3 to 3; expected 0 to 2, or -1",
        ),
        ({"prepare": _label(-2)}, "'case0': label values from -2 to -2"),
        (
            {"spatial_dims": 3},
            r"'case0': 2 spatial axes, shape \(6, 5\); .* 3-D images expects 3",
        ),
        (
            {"source": _Stacks(count=1)},
            r"'stack0': 3 spatial axes, shape \(2, 9, 9\); .* 2-D images expects 2",
        ),
    ],
)
def test_cases_that_do_not_fit_are_named(options, message):
    with pytest.raises(InputError, match=message):
        _prepared(**options).case(0)


def test_unlabelled_cases_are_named():
    class Unlabelled(_Pictures):
        def __getitem__(self, index):
            case = super().__getitem__(index)
            return Case(case.id, case.image, None, None, case.group)

    with pytest.raises(InputError, match="case 'case0': no label"):
        _prepared(Unlabelled()).case(0)


def test_cases_that_do_not_fit_are_prepared_once_and_mapped(tmp_path):
    source = _Pictures()
    store = tmp_path / "store"
    store.mkdir()
    (store / "left.npy").write_text("of a killed run")
    prepared = _prepared(source, cache_bytes=1, store=store)
    first = [prepared.case(case) for case in range(len(source))]
    assert not (store / "left.npy").exists()
    reads = len(source.reads)
    again = [prepared.case(case) for case in range(len(source))]
    assert len(source.reads) == reads == len(source)
    assert isinstance(again[0][0], np.memmap)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_array_equal(one[1], two[1])
        assert one[1].dtype == two[1].dtype
    iterator = _iterator(prepared)
    stored = _take(iterator, 5)
    plain = _take(_iterator(), 5)
    for one, two in zip(stored, plain, strict=True):
        np.testing.assert_array_equal(one["image"], two["image"])
    assert not store.exists()


def test_a_store_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    prepared = _prepared(cache_bytes=1, store=tmp_path / "file" / "store")
    prepared.case(0)
    with pytest.raises(InputError, match=r"cannot be written .*raise data.cache_gib"):
        prepared.case(1)
