"""From cases to training batches that are the same for any number of processes.

All examples stand in one endless global order. Every global batch is a run of it, and
each process loads its own stretch of the run. The crop of an example is drawn from the
seed and its place in the order, so neither processes nor threads can change it. grain
works ahead in threads and counts what was taken.
"""

import dataclasses
import pathlib
import shutil
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import grain
import numpy as np

from unet_jax.data.case import Case, Source, name_of, read_case
from unet_jax.data.patches import class_coordinates, draw_patch
from unet_jax.errors import InputError, RunError
from unet_jax.labels import IGNORE

Prepare = Callable[[Case], tuple[np.ndarray, np.ndarray]]
Coordinates = tuple[np.ndarray, ...]

# Independent random streams of one seed; a new use takes a new number.
_SHUFFLE, _COORDINATES, _CROP = range(3)

# Past so many examples indices come again, and random keys with them, which does less
# harm than a stop.
_INDICES = 2**31


class Example(NamedTuple):
    """What one training example is drawn from: a case, or one slice of it."""

    image: np.ndarray
    label: np.ndarray
    coordinates: Coordinates


class PreparedCases:
    """Cases on the training grid, prepared when first asked for and then kept.

    Images and labels stay in memory up to ``cache_bytes``, the least recently used
    going first; the newest stays even where it alone is larger. What goes is written to
    ``store``, once, and from then on mapped: a crop of a large volume reads its own
    bytes from the disk and no more. Class coordinates are few and stay always. Any
    number of threads may ask at once; a case is prepared by one of them.

    Args:
        source: the cases of the training split.
        prepare: case -> image ``(*spatial, channels)`` float32 and label
            ``(*spatial)`` signed integers on the training grid. With ``by_slice`` the
            slice axis is the first.
        num_classes: number of classes, background included.
        spatial_dims: spatial axes of the network, 2 or 3.
        by_slice: each slice of a case is an example of its own. The slices have to be
            counted, so every case is prepared at once.
        cache_bytes: memory for images and labels.
        store: folder for the cases that do not fit; made when it is needed, emptied
            first. None prepares such cases anew each time.
        seed: chooses the stored coordinates.
        labelled: refuse a case without a label. Of images alone the label that
            ``prepare`` gives stands for nothing, and no crop is centred on it.
        num_threads: threads that count the slices.
        coordinates_limit: the most stored pixels a class and example.

    Raises:
        InputError: if there is no case, or one does not fit these arguments.
    """

    def __init__(
        self,
        source: Source,
        prepare: Prepare,
        *,
        num_classes: int,
        spatial_dims: int,
        by_slice: bool,
        cache_bytes: int,
        seed: int,
        store: pathlib.Path | None = None,
        labelled: bool = True,
        num_threads: int = 1,
        coordinates_limit: int = 1000,
    ):
        """Count the examples."""
        if len(source) == 0:
            raise InputError("The training split has no case; expected at least one")
        self._source = source
        self._prepare = prepare
        self._num_classes = num_classes
        self._ndim = spatial_dims + by_slice
        self._by_slice = by_slice
        self._cache_bytes = cache_bytes
        self._seed = seed
        self._coordinates_limit = coordinates_limit
        self._store = store
        self._labelled = labelled
        self._stored: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        if store is not None and store.exists():
            shutil.rmtree(store)  # of a run that was killed
        self._cache: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()
        self._coordinates: dict[int, list[Coordinates]] = {}
        self._slices_with: dict[int, list[list[int]]] = {}
        self._cache_lock = threading.Lock()
        self._case_locks = [threading.Lock() for _ in range(len(source))]
        self._examples = self._list_examples(num_threads)

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._examples)

    def __getitem__(self, number: int) -> Example:
        """Return one example; its arrays are views of the case."""
        case, index = self._examples[number]
        image, label = self.case(case)
        if index is None:
            return Example(image, label, self._coordinates[case][0])
        return Example(image[index], label[index], self._coordinates[case][index])

    def with_foreground(self, number: int, rng: np.random.Generator) -> int:
        """Choose another slice of the same case for one that is all background.

        Most slices of a volume with a few lesions have none: crops centred on one must
        come from the others.

        Args:
            number: of an example.
            rng: the only source of chance.

        Returns:
            The same example where it has a class above background or is no slice; else
            one that has a random one of the classes of its case, if there are any.
        """
        case, index = self._examples[number]
        if index is None:
            return number
        if case not in self._slices_with:
            self.case(case)
        having = self._slices_with[case]
        if not having or any(index in places for places in having):
            return number
        places = having[rng.integers(len(having))]
        return number - index + places[rng.integers(len(places))]

    def name(self, number: int) -> str:
        """Name the case of an example, and its slice, without reading it.

        Args:
            number: of an example.

        Returns:
            Id and file of the case, as far as the source knows them; slices count from
            0 on the training grid.
        """
        case, index = self._examples[number]
        name = name_of(self._source, case)
        return name if index is None else f"{name}, slice {index} of it as prepared"

    def case(self, case: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the prepared image and label of one case.

        Args:
            case: number of the case in the source.

        Returns:
            What ``prepare`` gave, from memory where it is still there.

        Raises:
            InputError: if the case cannot be read or does not fit.
        """
        with self._case_locks[case]:
            with self._cache_lock:
                if case in self._cache:
                    self._cache.move_to_end(case)
                    return self._cache[case]
                if case in self._stored:
                    return self._stored[case]
            image, label = self._load(case)
            if case not in self._coordinates:
                self._coordinates[case] = self._find_classes(case, label)
                self._slices_with[case] = self._find_slices(case)
            with self._cache_lock:
                self._cache[case] = image, label
                self._evict()
            return image, label

    def _list_examples(self, num_threads: int) -> list[tuple[int, int | None]]:
        """Name the case of each example, and its slice where it is one."""
        cases = range(len(self._source))
        if not self._by_slice:
            return [(case, None) for case in cases]
        with ThreadPoolExecutor(max(num_threads, 1)) as pool:
            counts = list(pool.map(lambda case: len(self.case(case)[1]), cases))
        return [(case, index) for case in cases for index in range(counts[case])]

    def _evict(self) -> None:
        """Drop the least recently used cases until the rest fit the budget."""
        held = sum(image.nbytes + label.nbytes for image, label in self._cache.values())
        while held > self._cache_bytes and len(self._cache) > 1:
            case, (image, label) = self._cache.popitem(last=False)
            held -= image.nbytes + label.nbytes
            if self._store is not None:
                self._stored[case] = (
                    _mapped(self._store / f"{case}.image.npy", image),
                    _mapped(self._store / f"{case}.label.npy", label),
                )

    def close(self) -> None:
        """Delete the stored cases; a thread that still works stores no more."""
        with self._cache_lock:
            store, self._store = self._store, None
            self._stored.clear()
        if store is not None:
            shutil.rmtree(store, ignore_errors=True)

    def _load(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Read and prepare one case, and refuse what no example can be drawn from."""
        case = read_case(self._source, number)
        if self._labelled and case.label is None:
            raise InputError(f"Case {case.id!r} has no label; training needs one")
        image, label = self._prepare(case)
        if label.ndim != self._ndim:
            slices = "slices of " if self._by_slice else ""
            raise InputError(
                f"Case {case.id!r} has {label.ndim} spatial axes, shape {label.shape}; "
                f"a network trained on {slices}{self._ndim - self._by_slice}-D images "
                f"expects {self._ndim}; change train.patch_size or the data"
            )
        low, high = int(label.min()), int(label.max())
        if low < IGNORE or high >= self._num_classes:
            raise InputError(
                f"Case {case.id!r} has label values from {low} to {high}; expected "
                f"0 to {self._num_classes - 1}, or {IGNORE} for ignored pixels; "
                "change data.label_map or data.class_names"
            )
        return image, label

    def _find_slices(self, case: int) -> list[list[int]]:
        """List the slices that have a class, for each class above background."""
        slices = self._coordinates[case]
        having = [
            [place for place, found in enumerate(slices) if len(found[one])]
            for one in range(1, self._num_classes)
        ]
        return [places for places in having if places]

    def _find_classes(self, case: int, label: np.ndarray) -> list[Coordinates]:
        """Store where the classes are in each example of a case."""
        rng = _rng(self._seed, _COORDINATES, case)
        return [
            class_coordinates(
                part,
                num_classes=self._num_classes,
                limit=self._coordinates_limit,
                rng=rng,
            )
            for part in (label if self._by_slice else [label])
        ]


def _mapped(path: pathlib.Path, array: np.ndarray) -> np.ndarray:
    """Write an array, and return it as the file's own pages."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)
        mapped: np.ndarray = np.load(path, mmap_mode="r")
    except OSError as error:
        raise InputError(
            f"{path}: {array.nbytes >> 20} MiB of prepared data cannot be written "
            f"({error.strerror}); free space, or raise data.cache_gib to keep them in "
            "memory"
        ) from error
    return mapped


class TrainIterator:
    """Endless batches of one process; see ``make_train_iterator``."""

    def __init__(
        self,
        batches: grain.MapDataset,
        *,
        prepared: PreparedCases,
        name_place: Callable[[int], str],
        identity: dict[str, int],
        num_threads: int,
        prefetch_batches: int,
    ):
        """Start at the first batch; nothing is read before the first ``next``."""
        options = grain.ReadOptions(
            # A thread works on one batch: more threads than batches would be idle.
            num_threads=min(num_threads, prefetch_batches),
            prefetch_buffer_size=prefetch_batches,
        )
        self._iterator = iter(batches.to_iter_dataset(options))
        self._prepared = prepared
        self._name_place = name_place
        self._identity = identity

    def __iter__(self) -> "TrainIterator":
        """Return itself."""
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        """Return the next batch."""
        return next(self._iterator)

    def name(self, example_index: int) -> str:
        """Name the case that an example of a batch was drawn from.

        Args:
            example_index: as the batch had it, in whatever process.

        Returns:
            Id and file of the case, and the slice.
        """
        end = self.get_state()["batches"] * self._identity["global_batch_size"]
        # Indices come again: the last place before the end is the one that is meant.
        again = max(end - 1 - example_index, 0) // _INDICES
        return self._name_place(example_index + again * _INDICES)

    def get_state(self) -> dict[str, int]:
        """Return the place after the batch that ``next`` gave last.

        Batches that threads have prepared ahead do not count.

        Returns:
            A JSON-able dict, the same in every process.
        """
        return {**self._identity, "batches": self._iterator.get_state()["next_index"]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to a place that ``get_state`` gave, in any number of processes.

        Args:
            state: of an iterator over the same examples, batch size and seed.

        Raises:
            InputError: if it belongs to other ones: the batches would be others.
        """
        for key, expected in self._identity.items():
            if state.get(key) != expected:
                raise InputError(
                    f"The saved place in the training data has {key} = "
                    f"{state.get(key)}, this run has {expected}; restore the data and "
                    "config of the first run, or start in a new workdir"
                )
        self._iterator.set_state({"next_index": state["batches"]})

    def close(self) -> None:
        """Stop the threads; work that has not begun, and what is stored, is dropped."""
        self._iterator.close()
        self._prepared.close()


def make_train_iterator(
    prepared: PreparedCases,
    *,
    seed: int,
    global_batch_size: int,
    patch_size: Sequence[int],
    foreground_oversampling: float,
    process_index: int = 0,
    process_count: int = 1,
    rows_at_once: int | None = None,
    num_threads: int = 2,
    prefetch_batches: int = 4,
) -> TrainIterator:
    """Iterate for ever over this process's part of the global batches.

    All examples are shuffled together, anew for each epoch; an epoch that ends inside
    a batch goes on with the next. The rows of a global batch are dealt to the processes
    in turn, ``rows_at_once`` to each.

    Args:
        prepared: the examples.
        seed: of the shuffle and the crops, at least 0.
        global_batch_size: examples a step over all processes.
        patch_size: pixels of a crop on each spatial axis.
        foreground_oversampling: share of crops centred on a class, in [0, 1].
        process_index: which process this is.
        process_count: how many there are.
        rows_at_once: devices of a process, so that a device has the same rows wherever
            it is; None deals all rows of a process at once.
        num_threads: threads that draw batches ahead; 0 draws them when asked for.
        prefetch_batches: batches that they draw ahead.

    Returns:
        An iterator of dicts: ``image`` ``(local_batch, *patch_size, channels)``
        float32; ``label`` ``(local_batch, *patch_size)`` int32, class index or
        ``IGNORE``; ``example_index`` ``(local_batch,)`` int32, the place of each
        example in the endless order, to fold random keys from. What goes wrong in a
        thread is raised by ``next``.

    Raises:
        InputError: if the batch does not divide by the processes.
    """
    local_batch, rest = divmod(global_batch_size, process_count)
    if rest or not local_batch:
        raise InputError(
            f"train.batch_size = {global_batch_size} does not divide among "
            f"{process_count} processes; expected a multiple of {process_count}"
        )

    block = rows_at_once or local_batch
    if local_batch % block:
        raise InputError(
            f"train.batch_size = {global_batch_size}: {local_batch} rows a process do "
            f"not divide among its {block} devices"
        )
    load = _LoadPart(
        prepared=prepared,
        order=_EndlessOrder(len(prepared), seed),
        seed=seed,
        local_batch=local_batch,
        block=block,
        process_index=process_index,
        process_count=process_count,
        patch_size=tuple(patch_size),
        foreground_oversampling=foreground_oversampling,
    )
    # Not grain's shuffle: on a hundred examples it takes milliseconds an index, and
    # its epoch n of seed s is epoch 0 of seed s + n.
    batches = grain.MapDataset.range(sys.maxsize // global_batch_size).map(load)
    identity = {
        "seed": seed,
        "global_batch_size": global_batch_size,
        "num_examples": len(prepared),
    }
    return TrainIterator(
        batches,
        prepared=prepared,
        name_place=load.name,
        identity=identity,
        num_threads=num_threads,
        prefetch_batches=prefetch_batches,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _LoadPart:
    """From the number of a global batch to the arrays of one process."""

    prepared: PreparedCases
    order: "_EndlessOrder"
    seed: int
    local_batch: int
    block: int
    process_index: int
    process_count: int
    patch_size: tuple[int, ...]
    foreground_oversampling: float

    def __call__(self, batch: int) -> dict[str, np.ndarray]:
        """Load this process's part of the global batch with that number."""
        places = self._places(batch)
        crops = [self._draw(place) for place in places]
        images, labels = zip(*crops, strict=True)
        return {
            "image": np.stack(images).astype(np.float32, copy=False),
            "label": np.stack(labels).astype(np.int32, copy=False),
            "example_index": np.array(
                [place % _INDICES for place in places], dtype=np.int32
            ),
        }

    def _places(self, batch: int) -> list[int]:
        """Number the examples of this process's rows in the endless order."""
        first = batch * self.process_count * self.local_batch
        first += self.process_index * self.block
        return [
            first + turn * self.process_count * self.block + row
            for turn in range(self.local_batch // self.block)
            for row in range(self.block)
        ]

    def name(self, place: int) -> str:
        """Name the case, and the slice, that stands at one place in the order."""
        return self.prepared.name(self._choose(place)[0])

    def _choose(self, place: int) -> tuple[int, bool, np.random.Generator]:
        """Choose the example for one place, and whether its crop is centred."""
        rng, number = _rng(self.seed, _CROP, place), self.order[place]
        centred = bool(rng.random() < self.foreground_oversampling)
        if centred:
            number = self.prepared.with_foreground(number, rng)
        return number, centred, rng

    def _draw(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw the crop for one place in the order."""
        try:
            number, centred, rng = self._choose(place)
            return draw_patch(
                *self.prepared[number],
                patch_size=self.patch_size,
                centred=centred,
                rng=rng,
            )
        except InputError:
            raise
        except Exception as error:
            name = self.prepared.name(self.order[place])
            raise RunError(
                f"{name}: a crop of it cannot be drawn ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}); --debug shows where"
            ) from error


class _EndlessOrder:
    """Which example stands at each place: a new permutation of all for each epoch."""

    def __init__(self, num_examples: int, seed: int):
        self._num_examples = num_examples
        self._seed = seed
        # Threads that work ahead may be in the next epoch already.
        self._epoch_order = lru_cache(maxsize=2)(self._permute)

    def __getitem__(self, place: int) -> int:
        epoch, index = divmod(place, self._num_examples)
        return int(self._epoch_order(epoch)[index])

    def _permute(self, epoch: int) -> np.ndarray:
        return _rng(self._seed, _SHUFFLE, epoch).permutation(self._num_examples)


def _rng(seed: int, stream: int, index: int) -> np.random.Generator:
    """Make the generator of one use: its numbers depend on these three alone."""
    return np.random.default_rng(
        np.random.SeedSequence(entropy=seed, spawn_key=(stream, index))
    )
