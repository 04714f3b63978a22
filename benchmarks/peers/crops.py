"""A plain torch data set of random crops."""

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler

Read = Callable[[int], tuple[np.ndarray, np.ndarray]]
Transform = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

CENTRED = 1 / 3
"""Fraction of the crops that are centred on a pixel of a random class, as by default in
ours."""


class Crops(Dataset):
    """Crops of one size; some are centred on a random pixel of a random class."""

    def __init__(
        self,
        read: Read,
        length: int,
        patch: Sequence[int],
        transform: Transform | None = None,
    ) -> None:
        """Keep the arguments.

        Args:
            read: gives the normalised image and the label of an index.
            length: number of crops.
            patch: pixels an axis.
            transform: function of crops ``(1, *patch)``.
        """
        self._read = read
        self._length = length
        self._patch = patch
        self._transform = transform
        self._pixels: dict[int, list[np.ndarray]] = {}

    def __len__(self) -> int:
        """Return the number of images."""
        return self._length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw a crop: image ``(1, *patch)`` float32, label ``(*patch)`` int64."""
        image, label = self._read(index)
        centre = None
        if np.random.random() < CENTRED:
            centre = self._pixel(index, label)
        place = []
        for axis, (size, patch) in enumerate(
            zip(label.shape, self._patch, strict=True)
        ):
            room = size - patch
            if centre is None:
                start = np.random.randint(room + 1)
            else:
                start = min(max(centre[axis] - patch // 2, 0), room)
            place.append(slice(start, start + patch))
        crop = torch.from_numpy(image[tuple(place)].copy())[None]
        target = torch.from_numpy(label[tuple(place)].astype(np.int64))
        if self._transform is not None:
            crop, moved = self._transform(crop, target[None])
            target = moved[0]
        return crop, target

    def _pixel(self, index: int, label: np.ndarray) -> np.ndarray | None:
        """A random pixel of a random class; None where all is background."""
        if index not in self._pixels:
            present = np.unique(label[label > 0])
            self._pixels[index] = [np.argwhere(label == one) for one in present]
        places = self._pixels[index]
        if not places:
            return None
        found = places[np.random.randint(len(places))]
        return found[np.random.randint(len(found))]


def slabs(
    given: Mapping[str, np.ndarray], split: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read the data of the brain that our side wrote.

    Args:
        given: arrays that our side wrote.
        split: "train" or "validation".

    Returns:
        Normalised images and labels ``(slices, height, width)`` of each slab.
    """
    count = sum(name.startswith(f"{split}_label_") for name in given)
    return [
        (given[f"{split}_image_{index}"], given[f"{split}_label_{index}"])
        for index in range(count)
    ]


def from_memory(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Read:
    """Read from memory.

    Args:
        pairs: normalised image and label of each index.
    """
    return lambda index: pairs[index]


def of_slices(given: Mapping[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """List the slices of the brain's training slabs.

    Args:
        given: arrays that our side wrote.
    """
    return [pair for slab in slabs(given, "train") for pair in zip(*slab, strict=True)]


def from_pictures(paths: Sequence[tuple[pathlib.Path, pathlib.Path]]) -> Read:
    """Read, decode and normalise files each time.

    Args:
        paths: paths of images and masks.
    """

    def read(index: int) -> tuple[np.ndarray, np.ndarray]:
        image, label = (np.asarray(Image.open(path)) for path in paths[index])
        inside = image[image != 0]
        scaled = (image.astype(np.float32) - inside.mean()) / inside.std()
        return scaled.astype(np.float32), label

    return read


def loader(
    crops: Crops, *, batch: int, workers: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Draw batches without end in persistent processes.

    Args:
        crops: the data set.
        batch: crops of a batch.
        workers: processes.
    """
    sampler = RandomSampler(crops, replacement=True, num_samples=2**40)
    return iter(
        DataLoader(
            crops,
            batch_size=batch,
            sampler=sampler,
            num_workers=workers,
            worker_init_fn=_seed,
        )
    )


def _seed(worker: int) -> None:
    """Give each process its own NumPy seed and PyTorch one thread."""
    np.random.seed(torch.initial_seed() % 2**32)
    torch.set_num_threads(1)
