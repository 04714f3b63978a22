"""Tests which cases stay in memory between passes, and how long."""

import pickle

import numpy as np
import pytest

from unet_jax.data.case import Case
from unet_jax.data.images_alone import ImagesAlone
from unet_jax.data.memory import CaseMemory
from unet_jax.data.prepared import PreparedCases


def _case(index, size=10):
    image = np.full((size, 10, 1), index, np.uint8)
    return Case(f"c{index}", image, image[..., 0].astype(np.int8), None, "g")


class _Source:
    """Six cases of 200 bytes, and how often each was read."""

    def __init__(self, limit, shape=None):
        self.memory, self.reads, self.shape = CaseMemory(limit), [], shape

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return self.memory.get(index, lambda: self._read(index))

    def _read(self, index):
        self.reads.append(index)
        image = np.full(self.shape or (10, 10, 1), index, np.uint8)
        label = np.zeros(image.shape[:-1], np.int8)
        return Case(f"c{index}", image, label, None, "g")

    def release(self, index):
        self.memory.release(index)

    @property
    def held_bytes(self):
        return self.memory.held_bytes


def test_what_fits_is_read_once_and_the_rest_each_time():
    source = _Source(limit=500)
    for _ in range(3):
        for index in range(6):
            assert source[index].image[0, 0, 0] == index
    assert source.held_bytes == 400
    assert source.reads == [0, 1, 2, 3, 4, 5, *[2, 3, 4, 5] * 2]


def test_a_released_case_is_freed_and_not_kept_again():
    memory = CaseMemory(10**6)
    memory.get(0, lambda: _case(0))
    assert memory.held_bytes == 200
    memory.release(0)
    assert memory.held_bytes == 0
    memory.get(0, lambda: _case(0))
    memory.keep(0, _case(0))
    assert memory.held_bytes == 0


def test_a_kept_case_cannot_be_changed():
    memory = CaseMemory(10**6)
    case = memory.get(0, lambda: _case(0))
    with pytest.raises(ValueError, match="read-only"):
        case.image[0] = 7
    with pytest.raises(ValueError, match="read-only"):
        case.label[0] = 7


def test_a_copy_in_another_process_starts_empty():
    memory = CaseMemory(300)
    memory.keep(0, _case(0))
    copy = pickle.loads(pickle.dumps(memory))
    assert copy.held_bytes == 0
    copy.keep(0, _case(0))
    copy.keep(1, _case(1))
    assert copy.held_bytes == 200


@pytest.mark.parametrize("wrap", [lambda source: source, ImagesAlone])
def test_preparing_takes_the_cases_over_within_one_limit(wrap, tmp_path):
    """A prepared case has 500 bytes, so that three of six fit in memory."""
    limit = 1600
    source = _Source(limit)
    for index in range(6):
        source[index]
    assert source.held_bytes == 1200
    held = []

    def prepare(case):
        held.append(source.held_bytes)
        image = np.repeat(case.image.astype(np.float32), 1, axis=-1)
        return image, np.zeros(image.shape[:-1], np.int8)

    prepared = PreparedCases(
        wrap(source),
        prepare,
        num_classes=2,
        spatial_dims=2,
        by_slice=False,
        cache_bytes=limit,
        seed=0,
        store=tmp_path / "store",
        labelled=False,
    )
    for index in range(6):
        image, _ = prepared.case(index)
        assert image[0, 0, 0] == index
        cached = prepared._cache.values()
        total = source.held_bytes + sum(i.nbytes + x.nbytes for i, x in cached)
        assert total <= limit
    assert source.reads == [0, 1, 2, 3, 4, 5]
    assert held == [1200, 1000, 800, 600, 400, 200]
    assert source.held_bytes == 0


def test_what_is_prepared_stays_until_the_first_example_is_drawn():
    """Validation takes its sample after all slices have been counted."""
    source = _Source(limit=10**6, shape=(3, 10, 10, 1))
    for index in range(6):
        source[index]
    prepared = PreparedCases(
        source,
        lambda case: (case.image.astype(np.float32), case.label),
        num_classes=2,
        spatial_dims=2,
        by_slice=True,
        cache_bytes=10**6,
        seed=0,
    )
    source[0]
    assert source.reads == [0, 1, 2, 3, 4, 5]
    prepared[17]
    assert source.held_bytes == 0
