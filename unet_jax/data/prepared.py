"""Keeps training cases on the training grid, in memory or on disk."""

import pathlib
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from unet_jax.data.adjacent_slices import SliceOfVolume
from unet_jax.data.case import Case, Source, name_of, read_case
from unet_jax.data.case_store import CaseStore, Pixels, StoredArray
from unet_jax.data.labelled_classes import labelled_rows
from unet_jax.data.one_hot import WithOneHot
from unet_jax.data.patches import class_coordinates
from unet_jax.data.random_streams import COORDINATES, generator
from unet_jax.errors import InputError
from unet_jax.labels import IGNORE

Prepare = Callable[[Case], tuple[np.ndarray, np.ndarray]]
Coordinates = tuple[np.ndarray, ...]


class Example(NamedTuple):
    """One training example: a case, or one slice of it.

    Attributes:
        image: ``(*spatial, channels)`` float32, an array or read region by region.
        label: ``(*spatial)`` signed integers.
        coordinates: flat indices of pixels of each class, from `class_coordinates`.
    """

    image: Pixels | SliceOfVolume | WithOneHot
    label: Pixels
    coordinates: Coordinates


class PreparedCases:
    """Prepares each case when it is first used, and keeps it.

    Images and labels stay in memory up to ``cache_bytes``; the least recently used
    leave first, and the newest stays even if it alone is larger. A case that leaves is
    written to ``store`` once and mapped from then on: a crop of a large volume reads
    only its own bytes from the disk. Cases that the source itself holds in memory count
    towards ``cache_bytes``; once prepared, they are released when the room is needed or
    the first example is drawn, until when validation may take its sample of them. Class
    coordinates are few and always stay. Threads may use one object at the same time;
    each case is prepared by one of them.

    Args:
        prepare: function from a case to its image ``(*spatial, channels)`` float32 and
            label ``(*spatial)`` signed integers on the training grid. With ``by_slice``
            the first axis counts the slices.
        spatial_dims: number of spatial axes of the network, 2 or 3.
        by_slice: whether each slice of a case is an example. Counting the slices
            requires that every case is prepared at once.
        adjacent_slices: number of slices on each side of such a slice that are further
            channels of its image.
        previous_classes: number of classes of a previous prediction, whose class
            indices ``prepare`` gives as the last channel; an example has them as
            one-hot channels.
        cache_bytes: memory for images and labels, in bytes.
        store: folder for the cases that do not fit; created when it is needed, emptied
            first. With None such cases are prepared again at each use.
        labelled: whether a case without a label is an error. In training on images
            alone the label that ``prepare`` gives is a placeholder, and no crop is
            centred on it.
        kept: prepared cases of earlier runs, to which this one adds; None for none. A
            case that does not fit into ``cache_bytes`` is read from there by crops, and
            nothing is written to ``store``.
        coordinates_limit: largest number of stored pixels per class and example.

    Raises:
        InputError: there is no case, or a case does not fit these arguments.
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
        adjacent_slices: int = 0,
        previous_classes: int = 0,
        store: pathlib.Path | None = None,
        labelled: bool = True,
        kept: CaseStore | None = None,
        num_threads: int = 1,
        coordinates_limit: int = 1000,
    ):
        """Count the examples."""
        if len(source) == 0:
            raise InputError(
                "training split: 0 cases; expected at least one; fix the split"
            )
        self._source = source
        self._release = getattr(source, "release", lambda index: None)
        self._prepare = prepare
        self._num_classes = num_classes
        self._ndim = spatial_dims + by_slice
        self._by_slice = by_slice
        self._adjacent_slices = adjacent_slices
        self._previous_classes = previous_classes
        self._cache_bytes = cache_bytes
        self._seed = seed
        self._coordinates_limit = coordinates_limit
        self._store = store
        self._labelled_rows = labelled_rows(source, num_classes)
        self._labelled = labelled
        self._kept = kept
        self._stored: dict[int, tuple[Pixels, Pixels]] = {}
        self._to_release: list[int] = []
        if store is not None and store.exists():
            shutil.rmtree(store)  # left by a killed run
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
        with self._cache_lock:
            while self._to_release:
                self._release(self._to_release.pop())
        if index is None:
            seen: Pixels | WithOneHot = image
            if self._previous_classes:
                seen = WithOneHot(
                    image[..., :-1], image[..., -1], self._previous_classes
                )
            return Example(seen, label, self._coordinates[case][0])
        plane: Pixels | SliceOfVolume = image[index]
        if self._adjacent_slices:
            plane = SliceOfVolume(image, index, self._adjacent_slices)
        return Example(plane, label[index], self._coordinates[case][index])

    def with_foreground(self, number: int, rng: np.random.Generator) -> int:
        """Replace a slice without foreground by a slice of the same case that has some.

        Most slices of a volume with a few lesions show no lesion, so crops centred on
        one have to come from the other slices.

        Returns:
            The same number if the example has foreground or is not a slice; else the
            number of a slice that has a random class of the case, if there is one.
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

    def labelled_classes(self, numbers: Sequence[int]) -> np.ndarray | None:
        """Return the labelled classes of examples, ``(examples, classes)`` bool.

        None where every case has all classes labelled.
        """
        if self._labelled_rows is None:
            return None
        return self._labelled_rows[[self._examples[one][0] for one in numbers]]

    def name(self, number: int) -> str:
        """Name the case of an example, and its slice as prepared; nothing is read."""
        case, index = self._examples[number]
        name = name_of(self._source, case)
        return name if index is None else f"{name}, slice {index} of it as prepared"

    def case(self, case: int) -> tuple[Pixels, Pixels]:
        """Return the prepared image and label of one case; InputError if it cannot."""
        with self._case_locks[case]:
            with self._cache_lock:
                if case in self._cache:
                    self._cache.move_to_end(case)
                    return self._cache[case]
                if case in self._stored:
                    return self._stored[case]
            kept = None if self._kept is None else self._kept.get(case)
            if kept is not None and not self._fits(*kept):
                self._know_classes(case, kept[1])
                with self._cache_lock:
                    self._stored[case] = kept
                    self._to_release.append(case)
                return kept
            if kept is not None:
                image, label = (np.asarray(part) for part in kept)
            else:
                image, label = self._load(case)
                if self._kept is not None:
                    self._kept.put(case, image, label)
            self._know_classes(case, label)
            with self._cache_lock:
                self._cache[case] = image, label
                self._to_release.append(case)
                self._evict()
            return image, label

    def _fits(self, image: StoredArray, label: StoredArray) -> bool:
        """Whether a case fits into memory beside the others."""
        with self._cache_lock:
            held = self._held_bytes() + self._source_bytes()
        return held + image.nbytes + label.nbytes <= self._cache_bytes

    def _held_bytes(self) -> int:
        """Count the bytes of the prepared cases in memory."""
        return sum(image.nbytes + label.nbytes for image, label in self._cache.values())

    def _list_examples(self, num_threads: int) -> list[tuple[int, int | None]]:
        """List the case of each example, and its slice with ``by_slice``."""
        cases = range(len(self._source))
        if not self._by_slice:
            return [(case, None) for case in cases]
        with ThreadPoolExecutor(max(num_threads, 1)) as pool:
            counts = list(pool.map(lambda case: len(self.case(case)[1]), cases))
        return [(case, index) for case in cases for index in range(counts[case])]

    def _evict(self) -> None:
        """Drop cases until the rest fit: first from the source, then the oldest."""
        held = self._held_bytes()
        while self._to_release and held + self._source_bytes() > self._cache_bytes:
            self._release(self._to_release.pop())
        held += self._source_bytes()
        while held > self._cache_bytes and len(self._cache) > 1:
            case, (image, label) = self._cache.popitem(last=False)
            held -= image.nbytes + label.nbytes
            kept = None if self._kept is None else self._kept.get(case)
            if kept is not None:
                self._stored[case] = kept
            elif self._store is not None:
                self._stored[case] = (
                    _mapped(self._store / f"{case}.image.npy", image),
                    _mapped(self._store / f"{case}.label.npy", label),
                )

    def _source_bytes(self) -> int:
        """Count the bytes of the cases that the source holds in memory."""
        held: int = getattr(self._source, "held_bytes", 0)
        return held

    def close(self) -> None:
        """Delete the stored cases; threads that still work store no more."""
        with self._cache_lock:
            store, self._store = self._store, None
            self._stored.clear()
        if store is not None:
            shutil.rmtree(store, ignore_errors=True)

    def _load(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Read and prepare one case, and check that examples can be drawn from it."""
        case = read_case(self._source, number)
        if self._labelled and case.label is None:
            raise InputError(
                f"case {case.id!r}: no label; training needs one; add it or leave the "
                "case out"
            )
        image, label = self._prepare(case)
        if label.ndim != self._ndim:
            slices = "slices of " if self._by_slice else ""
            raise InputError(
                f"case {case.id!r}: {label.ndim} spatial axes, shape {label.shape}; "
                f"a network trained on {slices}{self._ndim - self._by_slice}-D images "
                f"expects {self._ndim}; change train.patch_size or the data"
            )
        low, high = int(label.min()), int(label.max())
        if low < IGNORE or high >= self._num_classes:
            raise InputError(
                f"case {case.id!r}: label values from {low} to {high}; expected "
                f"0 to {self._num_classes - 1}, or {IGNORE} for ignored pixels; "
                "change data.label_map or data.class_names"
            )
        return image, label

    def _find_slices(self, case: int) -> list[list[int]]:
        """List, for each foreground class, the slices that have it."""
        slices = self._coordinates[case]
        having = [
            [place for place, found in enumerate(slices) if len(found[one])]
            for one in range(1, self._num_classes)
        ]
        return [places for places in having if places]

    def _know_classes(self, case: int, label: Pixels) -> None:
        """Find pixels of each class in each example of a case, or read which."""
        if case in self._coordinates:
            return
        drawn = f"{self._seed}-{case}-{self._coordinates_limit}"
        found = None if self._kept is None else self._kept.classes(case, drawn)
        if found is None:
            found = self._find_classes(case, np.asarray(label))
            if self._kept is not None:
                self._kept.put_classes(case, drawn, found)
        self._coordinates[case] = found
        self._slices_with[case] = self._find_slices(case)

    def _find_classes(self, case: int, label: np.ndarray) -> list[Coordinates]:
        """Find pixels of each class in each example of a case."""
        rng = generator(self._seed, COORDINATES, case)
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
    """Write an array to a file, and map the file."""
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
