"""Draws training batches that are the same for any number of processes.

All examples have one endless global order. A global batch is a contiguous part of it,
and each process loads its own rows of the batch. The crop of an example depends only on
the seed and the position in the order, so neither processes nor threads can change it.
grain prepares batches ahead in threads and counts the batches that were taken.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import grain
import numpy as np

from unet_jax.data.patches import draw_patch
from unet_jax.data.prepared import PreparedCases
from unet_jax.data.random_streams import CHANGE, CROP, SHUFFLE, generator
from unet_jax.errors import InputError, RunError

# Indices are int32. After this many examples they repeat, and random keys with them,
# which does less harm than a stop.
_INDICES = 2**31

Change = Callable[[np.ndarray, np.random.Generator], None]
"""Function that changes the image of a crop ``(*spatial, channels)`` in place."""


class TrainIterator:
    """Iterates over endless batches of one process; see ``make_train_iterator``."""

    def __init__(
        self,
        load: "_LoadPart",
        *,
        global_batch_size: int,
        num_threads: int,
        prefetch_batches: int,
    ):
        """Start at the first batch; no batch is drawn before the first ``next``."""
        # Not grain's shuffle: on a hundred examples it takes milliseconds per index,
        # and its epoch n of seed s is epoch 0 of seed s + n.
        batches = grain.MapDataset.range(sys.maxsize // global_batch_size).map(load)
        options = grain.ReadOptions(
            # A thread works on one batch, so more threads than batches would be idle.
            num_threads=min(num_threads, prefetch_batches),
            prefetch_buffer_size=prefetch_batches,
        )
        self._iterator = iter(batches.to_iter_dataset(options))
        self._load = load
        self._identity = {
            "seed": load.seed,
            "global_batch_size": global_batch_size,
            "num_examples": len(load.prepared),
        }

    def __iter__(self) -> "TrainIterator":
        """Return itself."""
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        """Return the next batch."""
        return next(self._iterator)

    def name(self, example_index: int) -> str:
        """Name the case of an ``example_index`` of the last batch of any process."""
        end = self.get_state()["batches"] * self._identity["global_batch_size"]
        # Indices repeat: the last position before the end is the one that is meant.
        again = max(end - 1 - example_index, 0) // _INDICES
        return self._load.name(example_index + again * _INDICES)

    def get_state(self) -> dict[str, int]:
        """Return the position after the batch that ``next`` returned last.

        Batches that threads have prepared ahead do not count.
        """
        return {**self._identity, "batches": self._iterator.get_state()["next_index"]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a state; InputError if examples, batch size or seed differ."""
        for key, expected in self._identity.items():
            if state.get(key) != expected:
                raise InputError(
                    f"checkpoint: the saved position in the training data has {key} = "
                    f"{state.get(key)}, but this run has {expected}; restore the data "
                    "and config of the first run, or start in a new workdir"
                )
        self._iterator.set_state({"next_index": state["batches"]})

    def close(self) -> None:
        """Stop the threads, drop waiting work and delete the stored cases."""
        self._iterator.close()
        self._load.prepared.close()


def make_train_iterator(
    prepared: PreparedCases,
    *,
    seed: int,
    global_batch_size: int,
    patch_size: Sequence[int],
    foreground_oversampling: float,
    source_size: Sequence[int] | None = None,
    change: Change | None = None,
    process_index: int = 0,
    process_count: int = 1,
    rows_at_once: int | None = None,
    num_threads: int = 2,
    prefetch_batches: int = 4,
) -> TrainIterator:
    """Iterate endlessly over this process's part of the global batches.

    All examples are shuffled together, with a new order for each epoch; a batch at the
    end of an epoch is filled from the next one. The rows of a global batch are dealt to
    the processes in turn, ``rows_at_once`` to each.

    Args:
        seed: seed of the shuffle and the crops, at least 0.
        global_batch_size: number of examples per step over all processes.
        patch_size: pixels of a crop on each spatial axis.
        foreground_oversampling: fraction of crops centred on a class, in [0, 1].
        source_size: pixels of the larger crops to return, about the same centres; None
            for ``patch_size``.
        change: function that changes the image of a crop in place; None for none.
        rows_at_once: number of devices of a process, so that a device has the same rows
            in any process; None deals all rows of a process at once.
        num_threads: number of threads that draw batches ahead; 0 draws them on demand.

    Returns:
        An iterator of dicts: ``image`` ``(local_batch, *source_size, channels)``
        float32; ``label`` ``(local_batch, *source_size)`` int32, class index or
        ``IGNORE``; ``example_index`` ``(local_batch,)`` int32, the position of each
        example in the endless order, to fold random keys from. ``next`` raises the
        errors of the threads.

    Raises:
        InputError: the batch does not divide by the processes or devices.
    """
    local_batch, block = _local_rows(global_batch_size, process_count, rows_at_once)
    load = _LoadPart(
        prepared=prepared,
        order=_EndlessOrder(len(prepared), seed),
        seed=seed,
        local_batch=local_batch,
        block=block,
        process_index=process_index,
        process_count=process_count,
        patch_size=tuple(patch_size),
        source_size=tuple(source_size or patch_size),
        foreground_oversampling=foreground_oversampling,
        change=change,
    )
    return TrainIterator(
        load,
        global_batch_size=global_batch_size,
        num_threads=num_threads,
        prefetch_batches=prefetch_batches,
    )


def _local_rows(
    global_batch_size: int, process_count: int, rows_at_once: int | None
) -> tuple[int, int]:
    """Return the rows of a process per batch, and the rows that it gets at once."""
    local_batch, rest = divmod(global_batch_size, process_count)
    if rest or not local_batch:
        raise InputError(
            f"train.batch_size = {global_batch_size} does not divide among "
            f"{process_count} processes; expected a multiple of {process_count}"
        )
    block = rows_at_once or local_batch
    if local_batch % block:
        raise InputError(
            f"train.batch_size = {global_batch_size}: {local_batch} rows per process "
            f"do not divide among its {block} devices; expected a multiple of "
            f"{block * process_count}"
        )
    return local_batch, block


@dataclasses.dataclass(frozen=True, kw_only=True)
class _LoadPart:
    """Loads the rows of a global batch that belong to one process."""

    prepared: PreparedCases
    order: "_EndlessOrder"
    seed: int
    local_batch: int
    block: int
    process_index: int
    process_count: int
    patch_size: tuple[int, ...]
    source_size: tuple[int, ...]
    foreground_oversampling: float
    change: Change | None

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        """Load this process's part of a global batch, given its number."""
        places = self._places(number)
        crops = [self._draw(place) for place in places]
        images, labels = zip(*crops, strict=True)
        batch = {
            "image": np.stack(images).astype(np.float32, copy=False),
            "label": np.stack(labels).astype(np.int32, copy=False),
            "example_index": np.array(
                [place % _INDICES for place in places], dtype=np.int32
            ),
        }
        # A slice with foreground that replaces another one is of the same case.
        labelled = self.prepared.labelled_classes([self.order[one] for one in places])
        return batch if labelled is None else batch | {"labelled": labelled}

    def _places(self, batch: int) -> list[int]:
        """List the positions of this process's rows in the endless order."""
        first = batch * self.process_count * self.local_batch
        first += self.process_index * self.block
        return [
            first + turn * self.process_count * self.block + row
            for turn in range(self.local_batch // self.block)
            for row in range(self.block)
        ]

    def name(self, place: int) -> str:
        """Name the case and slice at one position in the order."""
        return self.prepared.name(self._choose(place)[0])

    def _choose(self, place: int) -> tuple[int, bool, np.random.Generator]:
        """Choose the example for one position, and whether its crop is centred."""
        rng, number = generator(self.seed, CROP, place), self.order[place]
        centred = bool(rng.random() < self.foreground_oversampling)
        if centred:
            number = self.prepared.with_foreground(number, rng)
        return number, centred, rng

    def _draw(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw the crop for one position in the order."""
        try:
            number, centred, rng = self._choose(place)
            image, label = draw_patch(
                *self.prepared[number],
                patch_size=self.patch_size,
                source_size=self.source_size,
                centred=centred,
                rng=rng,
            )
            if self.change is not None:
                self.change(image, generator(self.seed, CHANGE, place))
            return image, label
        except InputError:
            raise
        except Exception as error:
            name = self.prepared.name(self.order[place])
            raise RunError(
                f"{name}: a crop cannot be drawn ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}); --debug shows where"
            ) from error


class _EndlessOrder:
    """Maps positions to examples, with a new permutation for each epoch."""

    def __init__(self, num_examples: int, seed: int):
        self._num_examples = num_examples
        self._seed = seed
        # Threads that work ahead may already be in the next epoch.
        self._epoch_order = lru_cache(maxsize=2)(self._permute)

    def __getitem__(self, place: int) -> int:
        epoch, index = divmod(place, self._num_examples)
        return int(self._epoch_order(epoch)[index])

    def _permute(self, epoch: int) -> np.ndarray:
        return generator(self._seed, SHUFFLE, epoch).permutation(self._num_examples)
