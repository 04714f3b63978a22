"""Gives the cases of a folder of label maps images that are drawn from them."""

import dataclasses
import functools
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from unet_jax.augment.policy import resolve_options
from unet_jax.augment.synthesis import Synthesis
from unet_jax.data.case import Case
from unet_jax.data.folder.dataset import FolderDataset, FolderSource
from unet_jax.data.intensity import nonzero_box
from unet_jax.data.sub_labels import SubLabels
from unet_jax.experiment.labels_only import DRAWN_SCORES
from unet_jax.experiment.network import create_augmentation

_KEPT_BYTES = 2**28
"""Memory in bytes for the drawn images of a split."""

_MARGIN = 16
"""Pixels of air around a foreground that training keeps on each side."""

_WHITE = 170.0
"""Grey level of the intensity 1; a texture may reach 1.5, which is 255."""

_OPTIONAL = ("where", "facts", "extent", "class_counts", "release", "held_bytes")


def draw_images(config: ConfigDict, folder: FolderDataset) -> "DrawnDataset":
    """Give every case of a folder an image that is drawn from its label map.

    A case has the same image in every process and whenever a run is resumed, and in
    runs of other seeds or folds.
    """
    options = create_augmentation(config.copy_and_resolve_references()) or {}
    known = {k: v for k, v in options.items() if k not in ("extra", "synthesis")}
    synthesis = resolve_options(known)["synthesis"]
    assert isinstance(synthesis, Synthesis)
    draw = functools.partial(
        draw_scan,
        seed=config.data.split_seed,
        synthesis=synthesis,
        num_classes=len(folder.class_names),
        # Before the data have filled it in, it is None; then it is true.
        zero_outside=config.data.zero_outside is not False,
    )
    numbers = SubLabels(config.data.sub_labels, label_map=folder.label_map)
    return DrawnDataset(folder, numbers, draw)


def draw_scan(
    name: str,
    sub_labels: np.ndarray,
    label: np.ndarray,
    *,
    seed: int,
    synthesis: Synthesis,
    num_classes: int,
    zero_outside: bool,
) -> np.ndarray:
    """Draw the image of a case, which its name and the seed decide.

    Args:
        sub_labels: ``(*spatial)`` numbers from `SubLabels`.
        label: ``(*spatial)`` class of every pixel, or IGNORE.

    Returns:
        ``(*spatial, 1)`` uint8; 0 where nothing was imaged.
    """
    with jax.default_device(_host()):
        key = jax.random.key(seed, impl="threefry2x32")
        drawn = _compiled(synthesis, num_classes, zero_outside)(
            jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode()))),
            jnp.asarray(sub_labels[..., None], jnp.float32),
            jnp.asarray(label, jnp.int32),
        )
        image: np.ndarray = np.array(drawn)
    return image


@functools.cache
def _compiled(
    synthesis: Synthesis, num_classes: int, zero_outside: bool
) -> Callable[..., jax.Array]:
    """Compile the drawing of whole images, of which the label stays as it is."""

    @jax.jit
    def draw(key: jax.Array, sub_labels: jax.Array, label: jax.Array) -> jax.Array:
        image = whole.draw_scan(
            key,
            sub_labels,
            label,
            num_classes=num_classes,
            zero_outside=zero_outside,
        )
        return jnp.clip(jnp.round(_WHITE * image), 0, 255).astype(jnp.uint8)

    whole = dataclasses.replace(synthesis, field_of_view_probability=0.0)
    return draw


def _host() -> jax.Device:
    """Return a CPU, where every process draws the same bits; else the first device."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return jax.local_devices()[0]


Draw = Callable[[str, np.ndarray, np.ndarray], np.ndarray]
"""Function from the id of a case, its sub-labels and its label to its image."""


@dataclasses.dataclass(frozen=True, eq=False)
class DrawnDataset:
    """A folder of label maps whose cases have drawn images."""

    folder: FolderDataset
    numbers: SubLabels
    draw: Draw

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Ids and a hash of the label maps of each split."""
        return self.folder.fingerprint

    @property
    def splits_record(self) -> dict[str, Any] | None:
        """What a workdir keeps of the splits."""
        return self.folder.splits_record

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines of the folder, and one that says what images are."""
        return (*self.folder.notes, f"images: drawn; {DRAWN_SCORES}")

    def source(self, split: str) -> "DrawnImages":
        """Return the cases of a split, with their images."""
        return DrawnImages(self.folder.source(split), self.numbers, self.draw)

    def __getattr__(self, name: str) -> Any:
        """Return what else is known of the folder."""
        if name in ("traits", "class_names", "label_map", "intensity", "folds"):
            return getattr(self.folder, name)
        raise AttributeError(name)


class DrawnImages:
    """Cases of one split, whose images are drawn when they are read.

    Attributes:
        label_maps: the same cases for training, whose images are sub-labels.
    """

    def __init__(self, source: FolderSource, numbers: SubLabels, draw: Draw) -> None:
        """Draw nothing yet."""
        self.label_maps = LabelMaps(source, numbers)
        self._source, self._numbers, self._draw = source, numbers, draw
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of cases."""
        return len(self._source)

    def __getattr__(self, name: str) -> Any:
        """Return the optional methods of the folder's source."""
        if name in _OPTIONAL:
            return getattr(self._source, name)
        raise AttributeError(name)

    def __getitem__(self, index: int) -> Case:
        """Return one case with its image; the newest images are kept."""
        case = self._source[index]
        assert case.label is not None, "a label map is the label of its case"
        with self._lock:
            image = self._kept.pop(index, None)
            if image is None:
                numbers = self._numbers(case.image[..., 0])
                image = self._draw(case.id, numbers, case.label)
            self._kept[index] = image
            while sum(one.nbytes for one in self._kept.values()) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        return dataclasses.replace(case, image=image, reference=None)


@dataclasses.dataclass(frozen=True, eq=False)
class LabelMaps:
    """Cases for training: images are sub-labels, cropped to what is labelled."""

    source: FolderSource
    numbers: SubLabels

    def __len__(self) -> int:
        """Return the number of cases."""
        return len(self.source)

    def __getattr__(self, name: str) -> Any:
        """Return the optional methods of the folder's source."""
        if name in _OPTIONAL:
            return getattr(self.source, name)
        raise AttributeError(name)

    def __getitem__(self, index: int) -> Case:
        """Return one case."""
        case = self.source[index]
        image = self.numbers(case.image[..., 0])[..., None]
        assert case.label is not None, "a label map is the label of its case"
        box = tuple(
            slice(max(start - _MARGIN, 0), stop + _MARGIN)
            for start, stop in nonzero_box(
                np.concatenate([image, case.label[..., None]], -1)
            )
        )
        return dataclasses.replace(
            case, image=image[box], label=case.label[box], reference=None
        )
