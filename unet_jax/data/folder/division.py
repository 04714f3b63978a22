"""Divides the cases of a folder: recorded splits, given ones, or drawn ones."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unet_jax.data.folder.given_splits import GivenSplits, find_splits
from unet_jax.data.folder.groups import Groups, doubtful_folders, find_groups
from unet_jax.data.folder.options import FolderOptions
from unet_jax.data.folder.pairing import Layout
from unet_jax.data.folder.splits import (
    SPLITS,
    SPLITS_VERSION,
    Features,
    Part,
    Splits,
    draw_splits,
    fewest_groups,
    named_splits,
)
from unet_jax.errors import InputError, named_files, setting

_DOZENS = 12
"""Smallest number of cases that are never cut into slabs for want of groups."""


class RecordedSplits(NamedTuple):
    """Splits that a workdir keeps.

    Attributes:
        ids: ids by split.
        version: version of the rule that drew them.
        bounds: start and stop of each slab, by split; None for version 0.1 of
            unet_jax, which did not record them.
        groups: group by id, for cases that are not their own; None for 0.1.
    """

    ids: Mapping[str, Sequence[str]]
    version: int = 1
    bounds: Mapping[str, Sequence[Sequence[float]]] | None = None
    groups: Mapping[str, str] | None = None

    @property
    def has_unknown_slabs(self) -> bool:
        """Whether the splits are slabs of the same cases, without their bounds."""
        same = set(self.ids["train"]) & set(self.ids["validation"])
        return self.bounds is None and bool(same)


@dataclasses.dataclass(frozen=True)
class Division:
    """Groups of all cases, and what is known of the splits before classes are.

    Attributes:
        by_file: whether data.splits gives the splits.
    """

    groups: Groups
    given: GivenSplits
    recorded: RecordedSplits | None
    problems: list[str]

    by_file: bool

    @property
    def used_ids(self) -> frozenset[str] | None:
        """Ids that the workdir or a file names; None for all cases."""
        named: Mapping[str, Sequence[str]] | None = None
        if self.recorded is not None:
            named = self.recorded.ids
        elif self.by_file and not self.given.problems:
            named = self.given.ids
        if not named:
            return None
        return frozenset(one for ids in named.values() for one in ids)

    @property
    def trainable_ids(self) -> frozenset[str]:
        """Ids of the cases that train, or of all that may be drawn for it."""
        named = self.recorded.ids if self.recorded else self.given.ids
        return frozenset(self.groups.of if named is None else named.get("train", ()))

    @property
    def has_training(self) -> bool:
        """Whether problems leave any splits to complete."""
        return self.given.ids is None or bool(self.given.ids.get("train"))

    def splits(
        self, features: Features, options: FolderOptions, *, seed: int
    ) -> Splits:
        """Return the recorded splits, complete the given ones, or draw them.

        Raises:
            InputError: the groups allow no such splits.
        """
        drawing: dict[str, Any] = {
            "features": {
                one: {*features.get(one, ()), ("folder", self.groups.folders.get(one))}
                for one in self.groups.of
            },
            "seed": seed,
            "validation_fraction": options.validation_fraction,
            "fold": self.given.fold,
            "folds": options.folds,
        }
        if self.recorded is not None and not self.recorded.has_unknown_slabs:
            return _recorded(self.recorded)
        groups = self.groups.of
        if self.recorded is None:
            self._check_groups(options)
        if self.given.ids is not None:
            found = named_splits(self.given.ids, groups, **drawing)
            found = found._replace(folds=self.given.folds or found.folds)
        else:
            test = options.test_fraction
            found = draw_splits(groups, test_fraction=test, **drawing)
        return found if self.recorded is None else found._replace(version=1)

    def _check_groups(self, options: FolderOptions) -> None:
        """Refuse groups that are probably none, and slabs of dozens of cases."""
        ids, of, path = self.given.ids, self.groups.of, options.path
        cases, fewest = list(of), fewest_groups(options.fold, options.test_fraction)
        if ids is not None:
            # Given splits are not questioned; validation may have to be cut.
            cases, fewest = [] if ids.get("validation") else ids["train"], 2
        elif doubt := doubtful_folders(self.groups):
            raise InputError(f"data.path {path}: {doubt}")
        found = len({of[one] for one in cases})
        if len(cases) >= _DOZENS and found < fewest:
            raise InputError(
                f"data.path {path}: {len(cases)} cases are in {found} "
                f"{'group' if found == 1 else 'groups'}; expected {fewest} or more to "
                "draw splits from. List the cases of each split in a file and set "
                "data.splits, or draw among the cases, whose scores then say nothing "
                f"about new patients: {setting('data.group_regex', '.+')}"
            )


def divide(
    layout: Layout, options: FolderOptions, recorded: RecordedSplits | None
) -> Division:
    """Find the groups, and the splits that a workdir, a file or folders give."""
    version = SPLITS_VERSION if recorded is None else recorded.version
    groups = find_groups(layout, options.group_regex, version=version)
    if recorded is not None and recorded.groups is not None:
        of = {pair.id: recorded.groups.get(pair.id, pair.id) for pair in layout.pairs}
        groups = groups._replace(of=of, problems=[])
    problems = list(groups.problems)
    given = GivenSplits(None, options.fold, [])
    if recorded is None or recorded.groups is None:
        before = dict(groups.of)
        given = find_splits(
            layout,
            groups.of,
            path=Path(options.path),
            file=options.splits,
            fold=options.fold,
            by_regex=bool(options.group_regex),
        )
        if groups.of != before:
            origin = "data.splits" if options.splits else "folders"
            groups = groups._replace(origin=origin)
    if recorded is not None:
        if not recorded.has_unknown_slabs:
            given = GivenSplits(None, options.fold, [])  # its groups were wanted
        known = {pair.id for pair in layout.pairs}
        gone = [one for ids in recorded.ids.values() for one in ids if one not in known]
        problems += [
            f"data.path {options.path}: case {named_files(gone)} of the run is gone; "
            "expected every case of its recorded splits; put the files back"
        ] * bool(gone)
    return Division(groups, given, recorded, problems, bool(options.splits))


def _recorded(recorded: RecordedSplits) -> Splits:
    """Return the splits of a workdir."""
    bounds = recorded.bounds or {}
    parts = {
        split: tuple(
            Part(one, *map(float, bound))
            for one, bound in zip(
                recorded.ids[split],
                bounds.get(split) or [(0.0, 1.0)] * len(recorded.ids[split]),
                strict=True,
            )
        )
        for split in SPLITS
    }
    note = "as the workdir recorded them"
    return Splits(parts, note, recorded.version, placed=True)


def record_of(splits: Splits, groups: Mapping[str, str]) -> dict[str, Any]:
    """Return what `RecordedSplits` needs beside the ids, for config.json."""
    slabs = {
        split: [[part.start, part.stop] for part in parts]
        for split, parts in splits.parts.items()
        if not all(part.is_whole for part in parts)
    }
    used = sorted({part.id for parts in splits.parts.values() for part in parts})
    of = {one: groups[one] for one in used if groups[one] != one}
    return {"version": splits.version, "bounds": slabs, "groups": of}
