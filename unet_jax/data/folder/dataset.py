"""Gives the cases of a folder by split."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unet_jax.data.case import IGNORE, Case, CaseFacts, Extent
from unet_jax.data.case_traits import CaseTraits
from unet_jax.data.class_fractions import count_classes
from unet_jax.data.folder.checks import same_images
from unet_jax.data.folder.division import record_of
from unet_jax.data.folder.labelled import Labelled
from unet_jax.data.folder.options import FolderOptions
from unet_jax.data.folder.read import (
    StoredCase,
    joined,
    read_case_image,
    read_case_label,
)
from unet_jax.data.folder.scan import memory_key
from unet_jax.data.folder.slabs import cut_axis, slab_index, slab_of
from unet_jax.data.folder.splits import Part, Splits
from unet_jax.data.label_map import Entry, LabelMap
from unet_jax.data.labelled_classes import with_background
from unet_jax.data.memory import CaseMemory
from unet_jax.data.regions import Region
from unet_jax.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class FolderDataset:
    """Holds all cases of a folder and their splits, as `open_folder` finds them.

    The notes say how files were paired, labels mapped and splits made; ``intensity`` is
    the normalisation that a published set states, None for none; ``channel_names`` are
    its names of the channels, () for none; ``labelled`` has the cases in which only
    some classes are labelled, ``regions`` those that a published set states.
    """

    traits: tuple[CaseTraits, ...]
    splits: Splits
    _: dataclasses.KW_ONLY
    class_names: tuple[str, ...]
    label_map: tuple[Entry, ...]
    groups: Mapping[str, str]
    options: FolderOptions
    notes: tuple[str, ...]
    memory: CaseMemory
    intensity: str | None = None
    channel_names: tuple[str, ...] = ()
    labelled: Labelled = dataclasses.field(default_factory=dict)
    regions: tuple[Region, ...] = ()

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Ids and a hash of the pixels of each split, for ``config.json``."""
        by_id = {case.id: case for case in self.traits}
        result: dict[str, Any] = {}
        for split, parts in self.splits.parts.items():
            digest = hashlib.sha256()
            for part in parts:
                case = by_id[part.id]
                digest.update(f"{part} {case.digest} {case.label_digest}".encode())
                if part.id in self.labelled:
                    digest.update(f"{self.labelled[part.id]}".encode())
            ids = [part.id for part in parts]
            result[split] = {"ids": ids, "sha256": digest.hexdigest()}
        return result

    @property
    def folds(self) -> int:
        """Number of folds that the splits are one of; 0 without folds."""
        return self.splits.folds

    @property
    def splits_record(self) -> dict[str, Any]:
        """What a workdir keeps of the splits beside their ids, for ``config.json``."""
        return record_of(self.splits, self.groups)

    def source(self, split: str) -> "FolderSource":
        """Return the cases of a split; training cases may come from memory."""
        by_id = {case.id: case for case in self.traits}
        parts = self.splits.parts[split]
        same = same_images(self.traits, self.splits)
        return FolderSource(
            [(by_id[part.id], part) for part in parts],
            LabelMap(self.label_map, num_classes=len(self.class_names)),
            num_classes=len(self.class_names),
            groups=self.groups,
            options=self.options,
            # Only training prepares and so releases its cases.
            memory=self.memory if split == "train" else CaseMemory(0),
            duplicates=sum(one == split for one, *_ in same),
            labelled=self.labelled,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource:
    """Gives random access to the cases of one split.

    ``duplicates`` counts the cases whose image is also in an earlier split.
    """

    cases: Sequence[tuple[CaseTraits, Part]]
    classes: LabelMap
    _: dataclasses.KW_ONLY
    num_classes: int
    groups: Mapping[str, str]
    options: FolderOptions
    memory: CaseMemory
    duplicates: int = 0
    labelled: Labelled = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of cases."""
        return len(self.cases)

    def __getitem__(self, index: int) -> Case:
        """Return one case; InputError if its files have changed since the scan."""
        if not 0 <= index < len(self):
            raise IndexError(f"case {index} of {len(self)}")
        traits, part = self.cases[index]
        stored = self.memory.get(self._key(traits), lambda: self._read(traits))
        label = self.classes(stored.label, where=traits.masks[0])
        if stored.missing is not None:
            label = np.where(stored.missing, np.int16(IGNORE), label)
        labelled = self.labelled_classes(index)
        label = with_background(label, labelled)
        group = self.groups[traits.id]
        cut = slab_index(part, traits.shape, self.options.slice_axis)
        if cut is None:
            # The mean that fills missing pixels makes the image's own std too small.
            reference = None if stored.missing is None else traits.reference
            return Case(
                *(traits.id, stored.image, label, stored.spacing, group, reference),
                labelled_classes=labelled,
            )
        return Case(
            id=self._id(index),
            image=stored.image[cut],
            label=label[cut],
            spacing=stored.spacing,
            group=group,
            reference=traits.reference,
            labelled_classes=labelled,
        )

    def where(self, index: int) -> str:
        """Name one case and its file without reading it."""
        files = self.cases[index][0].images
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        return f"case {self._id(index)!r}, {files[0]}{more}"

    def facts(self, index: int) -> CaseFacts:
        """Describe one case without reading it."""
        traits, _ = self.cases[index]
        return CaseFacts(
            self._id(index), len(traits.shape), traits.channels, traits.spacing
        )

    def content(self, index: int) -> str:
        """Describe what one case is made of, without reading it."""
        traits, part = self.cases[index]
        facts = dataclasses.asdict(traits)
        for name in ("id", "patient", "images", "masks"):
            del facts[name]  # files may be moved
        facts["colors"] = [color[:2] for color in traits.colors]
        slab = slab_of(part, traits.shape, self.options.slice_axis)
        labelled = self.labelled_classes(index)
        read = (slab, self.options.reading, self.classes, labelled)
        return repr((sorted(facts.items()), *read))

    def thinnest_slab(self) -> tuple[int, int] | None:
        """Return the axis and the planes of the thinnest slab; None for whole cases."""
        axis = self.options.slice_axis
        slabs = [
            (slab.stop - slab.start, cut_axis(traits.shape, axis))
            for traits, part in self.cases
            if (slab := slab_of(part, traits.shape, axis)) is not None
        ]
        return min(slabs)[::-1] if slabs else None

    def extent(self) -> Extent:
        """Count groups and images; the files of its channels are one image."""
        files = {
            file
            for traits, _ in self.cases
            for file in traits.images[: None if traits.kind == "slices" else 1]
        }
        groups = {self.groups[traits.id] for traits, _ in self.cases}
        return Extent(len(groups), len(files))

    def class_counts(self, index: int) -> np.ndarray:
        """Count the pixels of each class of one case; only a slab is read for it."""
        traits, part = self.cases[index]
        if not part.is_whole:
            label = self[index].label
            assert label is not None
            return count_classes(label, self.num_classes)
        values = np.array(list(traits.values), np.int64)
        pixels = np.array(list(traits.values.values()), np.int64)
        classes = self.classes(values, where=traits.masks[0])
        counts = np.zeros(self.num_classes, np.int64)
        classes = with_background(classes, self.labelled_classes(index))
        counted = classes >= 0  # the others are IGNORE
        np.add.at(counts, classes[counted], pixels[counted])
        return counts

    def labelled_classes(self, index: int) -> tuple[int, ...] | None:
        """Return the classes that are labelled in one case; None for all."""
        return self.labelled.get(self.cases[index][0].id)

    def release(self, index: int) -> None:
        """Free one case that is held in memory."""
        self.memory.release(self._key(self.cases[index][0]))

    @property
    def held_bytes(self) -> int:
        """Bytes of the cases that are held in memory."""
        return self.memory.held_bytes

    def _key(self, traits: CaseTraits) -> Any:
        """Return the key of a case in the memory."""
        return memory_key(traits, self.options)

    def _read(self, traits: CaseTraits) -> StoredCase:
        """Read one case from its files."""
        options, kind = self.options, traits.kind
        image, spacing, images = read_case_image(traits.images, options, kind=kind)
        label, masks = read_case_label(
            traits.masks,
            options,
            kind=kind,
            painted=traits.painted,
            shape=traits.shape,
            grid=images[0],
        )
        expected = (*traits.shape, traits.channels)
        if label.shape != traits.shape or image.shape != expected:
            raise InputError(
                f"{traits.images[0]}: changed during the run (size {image.shape}, was "
                f"{expected}); put the old file back"
            )
        return joined(
            image,
            label,
            spacing,
            images=images,
            masks=masks,
            options=options,
            kind=kind,
        )

    def _id(self, index: int) -> str:
        """Return the id of a case; the id of a slab contains its planes."""
        traits, part = self.cases[index]
        slab = slab_of(part, traits.shape, self.options.slice_axis)
        if slab is None:
            return traits.id
        axis = cut_axis(traits.shape, self.options.slice_axis)
        return f"{traits.id}[{'xyz'[axis]} {slab.start}-{slab.stop}]"
