"""Gives the cases of any TFDS segmentation set: pictures, or volumes of slices."""

import functools
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unet_jax.data.case import Case, Extent
from unet_jax.data.files.read import check_finite
from unet_jax.data.label_map import LabelMap
from unet_jax.data.memory import CaseMemory
from unet_jax.data.tfds.prepare import prepare
from unet_jax.data.tfds.records import Features, TfdsRecords
from unet_jax.errors import InputError
from unet_jax.method import Reference, Spacing

__all__ = ["TfdsSource", "prepare"]

_SLICE_AXIS_KEY = "slice_axis"
_DEFAULT_SLICE_AXIS = 2


class _Facts(NamedTuple):
    """Facts that are equal for all slices of a volume."""

    group: str
    spacing: Spacing
    axis: int
    reference: Reference


class _Volume(NamedTuple):
    """A case of slices: their records, in the order of the slices."""

    id: str
    facts: _Facts
    records: tuple[int, ...]


class TfdsSource:
    """Gives the cases of a split, read from ArrayRecord without TensorFlow.

    Without ``volume_key`` every record is a picture and a case. With it the records are
    slices; the slices of one volume, stacked in the order of their index, are one case,
    and a gap in the indices begins a new case (its spacing would be wrong otherwise).
    The feature ``slice_axis`` holds the axis to stack along; without it, the last.

    Args:
        name: name of the set, optionally with ``/config`` and ``:version``.
        split: split or part of a split, such as ``"train[:90%]"``.
        data_dir: folder of prepared sets; None for the default of TFDS.
        image_key: feature with the image, ``(H, W)`` or ``(H, W, channels)``.
        label_key: feature with the label, ``(H, W)`` or ``(H, W, 1)`` integers.
        label_map: pairs of stored value and class (or IGNORE); None if the stored
            values are the classes.
        num_classes: number of classes, background included.
        volume_key: feature that names the volume of a slice.
        slice_index_key: feature with the index of a slice in its volume.
        spacing_key: feature with the millimetres per pixel, in the order of the axes.
        group_key: feature that names the patient; by default the volume or picture.
        id_key: feature that names a picture; by default its split, file and position.
        mean_key: feature with the mean over the non-zero pixels of a slice's whole
            scan, one number or one per channel; for sets that contain slabs of scans.
        std_key: feature with the standard deviation, given together with ``mean_key``.
        memory: memory for cases that are read again before they are prepared; None for
            none.

    Raises:
        InputError: the set, split, a feature or a file cannot be used, or the label map
            does not fit ``num_classes``. Reading a case raises it for a label value
            without a class, an image with NaN, and a damaged record.
    """

    def __init__(
        self,
        *,
        name: str,
        split: str,
        data_dir: str | Path | None = None,
        image_key: str = "image",
        label_key: str = "label",
        label_map: Sequence[tuple[int, int]] | None = None,
        num_classes: int,
        volume_key: str | None = None,
        slice_index_key: str | None = None,
        spacing_key: str | None = None,
        group_key: str | None = None,
        id_key: str | None = None,
        mean_key: str | None = None,
        std_key: str | None = None,
        memory: CaseMemory | None = None,
    ) -> None:
        """Prepare a set of this project, check the keys, list the volumes."""
        if volume_key and not slice_index_key:
            raise InputError(
                f"slice_index_key is not set, but volume_key is {volume_key!r}, and "
                "slices are stored in any order; name the feature with a slice's index"
            )
        if bool(mean_key) != bool(std_key):
            raise InputError(
                f"mean_key is {mean_key!r} and std_key {std_key!r}; expected both or "
                "neither"
            )
        self._keys = {
            "image_key": image_key,
            "label_key": label_key,
            "volume_key": volume_key,
            "slice_index_key": slice_index_key,
            "spacing_key": spacing_key,
            "group_key": group_key,
            "id_key": id_key,
            "mean_key": mean_key,
            "std_key": std_key,
        }
        self._classes = LabelMap(label_map, num_classes=num_classes)
        self._records = TfdsRecords(name, split, data_dir=data_dir)
        for option, key in self._keys.items():
            if key is not None and key not in self._records.features:
                raise InputError(
                    f"{self._records.where}: there is no feature {key!r}; set {option} "
                    f"to one of {', '.join(sorted(self._records.features))}"
                )
        self._volumes = list(self._list_volumes()) if volume_key else None
        self._memory = memory or CaseMemory(0)

    def __len__(self) -> int:
        """Return the number of pictures or volumes."""
        return len(self._records if self._volumes is None else self._volumes)

    def __getitem__(self, index: int) -> Case:
        """Read one case."""
        if not 0 <= index < len(self):
            raise IndexError(f"case {index} of {len(self)}")
        return self._memory.get(index, lambda: self._read(index))

    def _read(self, index: int) -> Case:
        """Read one case from its records."""
        if self._volumes is None:
            return self._read_picture(index)
        return self._read_volume(self._volumes[index])

    def extent(self) -> Extent:
        """Count groups and stored pictures or slices."""
        if self._volumes is not None:
            groups = len({volume.facts.group for volume in self._volumes})
            return Extent(groups, sum(len(volume.records) for volume in self._volumes))
        if self._keys["group_key"] is None:
            return Extent(len(self), len(self))
        features = self._features("group_key")
        examples = (self._records.example(i, features) for i in range(len(self)))
        found = {_text(self._value(one, "group_key")) for one in examples}
        return Extent(len(found), len(self))

    def release(self, index: int) -> None:
        """Free one case that is held in memory."""
        self._memory.release(index)

    @property
    def held_bytes(self) -> int:
        """Bytes of the cases that are held in memory."""
        return self._memory.held_bytes

    def where(self, index: int) -> str:
        """Name one case without reading it."""
        if self._volumes is None:
            name = self._records.record_id(index)
        else:
            name = self._volumes[index].id
        return f"case {name!r} of {self._records.where}"

    @functools.cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Name, version, sizes and a hash of the data, for ``config.json``."""
        return self._records.fingerprint()

    def content(self, index: int) -> str:
        """Describe what one case is made of, without reading it."""
        return repr((self.fingerprint, index, self._keys, self._classes))

    def _features(self, *options: str) -> Features:
        """Pick the features of some options, and the slice axis if there is one."""
        keys = [self._keys[option] for option in options]
        if _SLICE_AXIS_KEY in self._records.features:
            keys.append(_SLICE_AXIS_KEY)
        return self._records.pick(keys)

    @functools.cached_property
    def _picture_features(self) -> Features:
        """The features that the case of a picture needs."""
        return self._features(
            "image_key", "label_key", "spacing_key", "group_key", "id_key"
        )

    def _value(self, example: dict[str, Any], option: str) -> Any:
        """Return the value of an option's feature; None if the option is not set."""
        key = self._keys[option]
        return None if key is None else example[key]

    def _read_picture(self, index: int) -> Case:
        """Read one record as a case."""
        example = self._records.example(index, self._picture_features)
        name = self._value(example, "id_key")
        case_id = self._records.record_id(index) if name is None else _text(name)
        image, label = self._arrays(example, case_id)
        group = self._value(example, "group_key")
        return Case(
            id=case_id,
            image=image,
            label=label,
            spacing=self._spacing(example, case_id, label.ndim),
            group=case_id if group is None else _text(group),
        )

    def _read_volume(self, volume: _Volume) -> Case:
        """Read the slices of one volume and stack them."""
        pairs = []
        for index in volume.records:
            example = self._records.example(index, self._picture_features)
            pairs.append(self._arrays(example, self._records.record_id(index)))
        shapes = sorted({image.shape for image, _ in pairs})
        if len(shapes) > 1:
            raise InputError(
                f"{self._records.where}, volume {volume.id!r}: its slices have shapes "
                f"{shapes}, expected one; check volume_key"
            )
        return Case(
            id=volume.id,
            image=np.stack([image for image, _ in pairs], axis=volume.facts.axis),
            label=np.stack([label for _, label in pairs], axis=volume.facts.axis),
            spacing=volume.facts.spacing,
            group=volume.facts.group,
            reference=volume.facts.reference,
        )

    def _arrays(
        self, example: dict[str, Any], case_id: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decode image ``(*spatial, channels)`` and label ``(*spatial)``."""
        where = f"{self._records.where}, example {case_id!r}"
        image, label = (
            _decoded(
                self._value(example, option),
                feature=self._records.features[self._keys[option]],
                is_label=option == "label_key",
                where=f"{where}, {self._keys[option]!r}",
            )
            for option in ("image_key", "label_key")
        )
        if label.ndim > 2 and label.shape[-1] == 1:
            label = label[..., 0]
        if image.ndim == label.ndim == 2:
            image = image[..., None]
        if image.shape[:-1] != label.shape:
            raise InputError(
                f"{where}: image {image.shape} and label {label.shape}, expected "
                "(H, W, channels) and (H, W) or (H, W, 1), equal in H and W; check "
                "image_key and label_key"
            )
        check_finite(image, name=where)
        return image, self._classes(label, where=where)

    def _spacing(self, example: dict[str, Any], case_id: str, ndim: int) -> Spacing:
        """Return millimetres per pixel on each axis of a picture or volume."""
        stored = self._value(example, "spacing_key")
        if stored is None:
            return None
        spacing = [float(step) for step in np.atleast_1d(stored)]
        if len(spacing) == 3 and ndim == 2:
            del spacing[self._slice_axis(example)]
        if len(spacing) != ndim or not all(0 < step < np.inf for step in spacing):
            raise InputError(
                f"{self._records.where}, example {case_id!r}: spacing {spacing}, "
                f"expected {ndim} positive values in mm; check spacing_key"
            )
        return tuple(spacing)

    def _reference(self, example: dict[str, Any], case_id: str) -> Reference:
        """Return mean and std of each channel of the whole scan, if stored."""
        if self._keys["mean_key"] is None:
            return None
        means, stds = (
            [float(value) for value in np.atleast_1d(self._value(example, option))]
            for option in ("mean_key", "std_key")
        )
        pairs = tuple(zip(means, stds, strict=False))
        if len(means) != len(stds) or not all(
            np.isfinite(mean) and 0 < std < np.inf for mean, std in pairs
        ):
            raise InputError(
                f"{self._records.where}, example {case_id!r}: means {means} and stds "
                f"{stds}, expected one finite number of each per channel, with stds "
                "above 0; check mean_key and std_key"
            )
        return pairs

    def _slice_axis(self, example: dict[str, Any]) -> int:
        """Return the axis that the slices of a volume are stacked along."""
        return int(example.get(_SLICE_AXIS_KEY, _DEFAULT_SLICE_AXIS))

    def _list_volumes(self) -> Iterator[_Volume]:
        """Group the slices by volume without decoding an image."""
        features = self._features(
            "volume_key",
            "slice_index_key",
            "spacing_key",
            "group_key",
            "mean_key",
            "std_key",
        )
        volumes: dict[str, dict[int, int]] = {}
        facts: dict[str, _Facts] = {}
        for record in range(len(self._records)):
            example = self._records.example(record, features)
            name = _text(self._value(example, "volume_key"))
            where = f"{self._records.where}, volume {name!r}"
            index = int(self._value(example, "slice_index_key"))
            if index in volumes.setdefault(name, {}):
                raise InputError(
                    f"{where}: two slices have the index {index}, expected one; check "
                    "volume_key and slice_index_key"
                )
            volumes[name][index] = record
            group = self._value(example, "group_key")
            found = _Facts(
                group=name if group is None else _text(group),
                spacing=self._spacing(example, f"{name}:{index}", 3),
                axis=self._slice_axis(example),
                reference=self._reference(example, f"{name}:{index}"),
            )
            if facts.setdefault(name, found) != found:
                raise InputError(
                    f"{where}: slice {index} has {found}, others {facts[name]}, "
                    "expected the same; check volume_key"
                )
        for name, slices in sorted(volumes.items()):
            for run in _contiguous(sorted(slices)):
                records = tuple(slices[index] for index in run)
                yield _Volume(f"{name}:{run[0]}-{run[-1]}", facts[name], records)


def _contiguous(indices: list[int]) -> Iterator[list[int]]:
    """Split sorted indices at gaps."""
    starts = [i for i in range(1, len(indices)) if indices[i] != indices[i - 1] + 1]
    for start, stop in zip([0, *starts], [*starts, len(indices)], strict=True):
        yield indices[start:stop]


def _text(value: Any) -> str:
    """Convert a text feature, which is read as bytes, or a number to text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _decoded(value: Any, *, feature: Any, is_label: bool, where: str) -> np.ndarray:
    """Decode a picture with Pillow, as its feature describes it; arrays pass."""
    if not isinstance(value, bytes):
        return np.asarray(value)
    from PIL import Image, UnidentifiedImageError

    channels = feature.shape[-1]
    wide = np.dtype(feature.np_dtype).itemsize > 1
    try:
        with Image.open(io.BytesIO(value)) as picture:
            if feature.np_dtype == np.float32:
                # TFDS keeps the four bytes of a float as the channels of a PNG.
                return np.array(picture.convert("RGBA")).view(np.float32)
            if channels == 1 and (wide or is_label):
                # A palette label stores its class in the index, not in the colour.
                return np.array(picture)
            if not wide:
                return np.array(
                    picture.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
                )
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise InputError(
            f"{where}: the picture cannot be decoded ({error}); prepare the set again"
        ) from error
    raise InputError(
        f"{where}: {channels} channels of {np.dtype(feature.np_dtype)} are stored, "
        "expected 8-bit channels, or one of 16 bits; convert the set"
    )
