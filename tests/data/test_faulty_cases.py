"""Tests that any exception of a reader names the case, and nothing hangs."""

import itertools
import threading

import numpy as np
import pytest

from unet_jax.data.case import Case, name_of, read_case
from unet_jax.data.images_alone import ImagesAlone
from unet_jax.data.pipeline import make_train_iterator
from unet_jax.data.prepared import PreparedCases
from unet_jax.errors import InputError, RunError


class _Source:
    """Pictures, or volumes of three slices, one of which raises when it is read."""

    def __init__(self, shape=(6, 6), bad=None, error=None):
        self.shape, self.bad, self.error = shape, bad, error

    def __len__(self):
        return 7

    def __getitem__(self, index):
        if index == self.bad:
            raise self.error
        image = np.full((*self.shape, 1), index, np.float32)
        label = np.zeros(self.shape, np.int16)
        if len(self.shape) == 3:
            label[1] = 1  # centred crops come from this slice alone
        return Case(f"c{index}", image, label, None, f"c{index}")

    def where(self, index):
        return f"case 'c{index}', /data/c{index}.png"


def _iterator(source, *, prepare=lambda case: (case.image, case.label), **options):
    prepared = PreparedCases(
        source,
        prepare,
        num_classes=2,
        spatial_dims=2,
        by_slice=len(source.shape) == 3,
        cache_bytes=10**6,
        seed=0,
    )
    options = {
        "seed": 1,
        "global_batch_size": 4,
        "patch_size": (4, 4),
        "foreground_oversampling": 0.5,
        **options,
    }
    return make_train_iterator(prepared, **options)


@pytest.mark.parametrize("num_threads", [0, 3])
@pytest.mark.parametrize(
    "error",
    [
        OSError(116, "Stale file handle"),
        ZeroDivisionError("x"),
        MemoryError(),
        KeyError(1),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_arbitrary_exception_names_the_file_and_ends_the_threads(error, num_threads):
    threads = threading.active_count()
    iterator = _iterator(_Source(bad=4, error=error), num_threads=num_threads)
    name = type(error).__name__
    with pytest.raises(InputError, match=rf"^case 'c4', /data/c4.png: .*\({name}"):
        list(itertools.islice(iterator, 4))
    iterator.close()
    assert threading.active_count() <= threads + num_threads


def test_what_a_reader_says_itself_is_left_as_it_is():
    error = InputError("c2.png: is empty (0 bytes)")
    with pytest.raises(InputError, match=r"^c2.png: is empty"):
        read_case(_Source(bad=2, error=error), 2)


def test_what_goes_wrong_after_reading_is_named_too():
    def prepare(case):
        if case.id == "c3":
            raise IndexError("out of bounds")
        return case.image, case.label

    iterator = _iterator(_Source(), prepare=prepare)
    with pytest.raises(
        RunError, match=r"^case 'c3', /data/c3.png: a crop .*IndexError"
    ):
        list(itertools.islice(iterator, 4))
    iterator.close()


def test_sources_name_their_cases_without_reading_them():
    source = _Source(bad=1, error=OSError())
    assert name_of(ImagesAlone(source), 1) == "case 'c1', /data/c1.png"
    assert name_of([source[0]], 0) == "case number 0"


@pytest.mark.parametrize("process_index", [0, 1])
def test_an_example_index_leads_back_to_its_case_and_slice(process_index):
    iterator = _iterator(
        _Source((3, 6, 6)), process_index=process_index, process_count=2
    )
    other = _iterator(_Source((3, 6, 6)))
    centred = 0
    for _ in range(6):
        batch, whole = next(iterator), next(other)
        for image, index in zip(batch["image"], batch["example_index"], strict=True):
            name = iterator.name(int(index))
            case = int(image.max())
            assert name.startswith(f"case 'c{case}', /data/c{case}.png, slice ")
            assert name == other.name(int(index))
        for label, index in zip(whole["label"], whole["example_index"], strict=True):
            # The class fills its slice, so the label tells which slice it is.
            centred += (label.max() == 1) == ("slice 1 of" in other.name(int(index)))
    assert centred == 24
    iterator.close()
    other.close()


def test_indices_that_come_again_mean_the_last_place_that_was_drawn():
    iterator = _iterator(_Source(), num_threads=0)
    state = {**iterator.get_state(), "batches": 2**29}  # 2**31 examples
    iterator.set_state(state)
    batch = next(iterator)
    assert batch["example_index"].tolist() == [0, 1, 2, 3]
    for image, index in zip(batch["image"], batch["example_index"], strict=True):
        assert f"c{int(image.max())}'" in iterator.name(int(index))
    iterator.close()
