"""Tests finding and building sets: names, versions, killed and parallel builds."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests.data.tfds.small_sets import SQUARE, brain_slices, square
from unet_jax.data.tfds.source import TfdsSource, prepare
from unet_jax.errors import InputError


def test_unknown_name_lists_ours(tmp_path):
    with pytest.raises(
        InputError,
        match="'mni152_tisue' is unknown; did you mean 'mni152_tissue'\\?; this "
        "project builds mni152_tissue",
    ):
        prepare("mni152_tisue", tmp_path)
    with pytest.raises(InputError, match="'qqqq' is unknown; this project builds"):
        prepare("qqqq", tmp_path)


def test_public_set_that_is_not_prepared(tmp_path):
    with pytest.raises(InputError) as error:
        prepare("oxford_iiit_pet", tmp_path)
    message = str(error.value)
    assert f"is not prepared: looked in {tmp_path}/oxford_iiit_pet;" in message
    assert (
        "`tfds build oxford_iiit_pet --file_format=array_record "
        f"--data_dir={tmp_path}` once (needs TensorFlow and the network)" in message
    )


def test_malformed_name(tmp_path):
    with pytest.raises(InputError, match=r"'\.\./x': expected 'set', 'set/config' or"):
        prepare("../x", tmp_path)


def test_versions_and_configs(store, tmp_path):
    for version in ("1.0.0", "10.0.0", "9.0.0"):
        rows = [("a", square(1))]
        store(
            tmp_path,
            name="v",
            version=version,
            features=SQUARE,
            splits={"train": rows},
        )
    store(
        tmp_path,
        name="c",
        config="big",
        features=SQUARE,
        splits={"t": [("a", square(1))]},
    )
    assert prepare("v", tmp_path).name == "10.0.0"
    assert prepare("v:9.0.0", tmp_path).name == "9.0.0"
    with pytest.raises(InputError, match=r"found versions 1\.0\.0, 10\.0\.0, 9\.0\.0"):
        prepare("v:2.0.0", tmp_path)
    assert prepare("c/big", tmp_path) == tmp_path / "c" / "big" / "1.0.0"
    with pytest.raises(InputError, match=r"has configs; found big in .* as in 'c/big'"):
        prepare("c", tmp_path)
    source = TfdsSource(name="c/big", split="t", data_dir=tmp_path, num_classes=2)
    assert source.fingerprint["name"] == "c/big"


def test_another_version_of_ours(tmp_path):
    with pytest.raises(
        InputError, match="expected 'mni152_tissue' or 'mni152_tissue:1"
    ):
        prepare("mni152_tissue:0.9.0", tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"cannot be written there .*give a data_dir"):
        prepare("mni152_tissue", tmp_path / "file")


# Killed and concurrent builds.

_KILLED = """
import os, signal, sys
from unet_jax.data.tfds.source import prepare
from unet_jax.datasets.mni152_tissue import mni152_tissue_dataset_builder as module
whole = module.Mni152Tissue._generate_examples
def cut(self, *args):
    for example in whole(self, *args):
        if example[1]["position_mm"] == 15:  # Two splits are written by then.
            os.kill(os.getpid(), signal.SIGKILL)
        yield example
module.Mni152Tissue._generate_examples = cut
prepare("mni152_tissue", sys.argv[1])
"""


def test_a_build_that_was_killed_does_not_spoil_the_next(tmp_path):
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    left = list((tmp_path / "mni152_tissue").iterdir())
    assert len(left) == 1
    assert left[0].name.startswith("incomplete.")
    assert any(left[0].iterdir())
    assert len(brain_slices(tmp_path)) == 22


_RACE = """
import sys
from unet_jax.data.tfds.source import TfdsSource
source = TfdsSource(name="mni152_tissue", split="train", data_dir=sys.argv[1],
                    num_classes=4)
print(len(source), source.fingerprint["sha256"])
"""


def test_two_processes_build_at_once(tmp_path):
    command = [sys.executable, "-W", "error", "-c", _RACE, str(tmp_path)]
    pair = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    results = [process.communicate() for process in pair]
    assert [process.returncode for process in pair] == [0, 0], results
    shown = [output.decode().splitlines()[-1] for output, _ in results]
    assert shown[0] == shown[1]
    assert os.listdir(tmp_path / "mni152_tissue") == ["1.0.0"]


def test_the_slower_of_two_builds_takes_what_the_faster_has_made(tmp_path, monkeypatch):
    from unet_jax.datasets.mni152_tissue import mni152_tissue_dataset_builder as module

    faster = prepare("mni152_tissue", tmp_path / "faster")
    original = module.load_template

    def overtaken(kind):
        target = tmp_path / "slower" / "mni152_tissue" / "1.0.0"
        if not target.exists():
            shutil.copytree(faster, target)
            (target / "mark").write_text("of the faster")
        return original(kind)

    monkeypatch.setattr(module, "load_template", overtaken)
    folder = prepare("mni152_tissue", tmp_path / "slower")
    assert (folder / "mark").read_text() == "of the faster"
    assert os.listdir(folder.parent) == ["1.0.0"]
    assert len(brain_slices(tmp_path / "slower")) == 22
