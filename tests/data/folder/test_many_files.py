"""Tests that the time of opening a folder grows with its cases, not with their square.

Times are those of the processor: other programs do not change them. A computation that
compares all cases with all takes minutes for these numbers.
"""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from unet_jax.data.folder.given_splits import find_splits
from unet_jax.data.folder.open import _trained_values
from unet_jax.data.folder.options import FolderOptions
from unet_jax.data.folder.pairing import Naming, join, pair_beside
from unet_jax.data.folder.splits import Part, Splits

COUNT = 8000
IDS = [f"p{number // 10}/{number}" for number in range(COUNT)]


@pytest.fixture(autouse=True)
def seconds():
    """Fail where a test takes more than three seconds of the processor."""
    start = time.process_time()
    yield
    assert time.process_time() - start < 3


def test_names_are_paired():
    images = {Path(f"images/{one}.png"): one for one in IDS}
    masks = {Path(f"masks/{one}_mask.png"): f"{one}_mask" for one in IDS}
    layout = join(images, masks, "", "_mask", naming=Naming())
    assert sum(len(pair.masks) for pair in layout.pairs) == COUNT


def test_names_beside_each_other_are_paired():
    files = {Path(f"{one}{end}.png"): one + end for one in IDS for end in ("", "_seg")}
    layout = pair_beside(files, Naming())
    assert sum(len(pair.masks) for pair in layout.pairs) == COUNT


def test_values_of_training_are_collected():
    traits = tuple(SimpleNamespace(id=one, shape=(8, 8)) for one in IDS)
    scanned = SimpleNamespace(traits=traits, values={one: {0: 1, 1: 2} for one in IDS})
    splits = Splits({"train": tuple(map(Part, IDS))}, "")
    assert _trained_values(splits, scanned, FolderOptions(path="")) == {0, 1}


def test_names_of_a_file_of_splits_are_found(tmp_path):
    layout = SimpleNamespace(
        pairs=[SimpleNamespace(id=one, patient=one[:3]) for one in IDS], test=()
    )
    path = tmp_path / "splits.json"
    path.write_text(
        json.dumps({"train": IDS[:-2], "val": IDS[-2:-1], "test": IDS[-1:]})
    )
    groups = {one: one for one in IDS}
    found = find_splits(
        layout, groups, path=tmp_path, file=str(path), fold=-1, by_regex=False
    )
    assert not found.problems
    assert len(found.ids["train"]) == COUNT - 2
