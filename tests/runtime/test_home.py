"""Every path that a user gives may begin with ~."""

import numpy as np
import pytest
from PIL import Image

from unet_jax.bucket.place import copy_of, opened
from unet_jax.commands import flags
from unet_jax.configs import base
from unet_jax.data.folder.layouts import find_layout
from unet_jax.data.folder.new_images import find_new_images
from unet_jax.data.folder.options import ReadOptions
from unet_jax.data.folder.pairing import Naming
from unet_jax.data.tfds.prepare import prepare
from unet_jax.errors import InputError
from unet_jax.experiment.config_file import config_path
from unet_jax.experiment.data import open_dataset
from unet_jax.runtime.home import expanded
from unet_jax.runtime.stop import Stop


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("path", ["", "a/~", "/a~b", "./~x", "gs://bucket/~/run"])
def test_other_paths_stay(path):
    assert expanded(path) == path


def test_an_unknown_home_is_no_folder_of_that_name():
    with pytest.raises(InputError, match=r"^~nobody_here/run: the home folder of ~nob"):
        expanded("~nobody_here/run")


def test_flags_with_paths(home):
    values = {"workdir": "~/a", "input": "~", "output": "~/o/p", "runs": "~/b,c,~/d"}
    arguments = [f"--{name}={value}" for name, value in values.items()]
    saved = flags.FLAGS.flag_values_dict()
    try:
        flags.parse(["unet_jax", *arguments, "--workdirs=~/e,gs://f/g"])
        found = {name: flags.FLAGS[name].value for name in (*values, "workdirs")}
    finally:
        for name in (*values, "workdirs"):
            flags.FLAGS[name].value = saved[name]
    assert found == {
        "workdir": f"{home}/a",
        "input": str(home),
        "output": f"{home}/o/p",
        "runs": [f"{home}/b", "c", f"{home}/d"],
        "workdirs": [f"{home}/e", "gs://f/g"],
    }


def test_workdirs_of_a_program_and_of_init_from(home):
    with opened("~/run", stop=Stop()) as place:
        assert place.path == home / "run"
    with copy_of("~/run") as path:
        assert path == home / "run"


def test_files_of_configs_images_and_data(home):
    for name in ("images", "masks"):
        (home / "set" / name).mkdir(parents=True)
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(home / "set" / name / "a.png")
    (home / "own.py").write_text("")
    assert config_path("~/own.py") == (home / "own.py", "")
    (found,) = find_new_images(
        "~/set/images", ReadOptions(slice_axis=2, tiff_axes=""), channels=1
    )
    assert found.path == home / "set/images/a.png"
    layout = find_layout(
        home,
        images="~/set/images",
        masks="~/set/masks",
        naming=Naming(),
        stack=False,
    )
    assert [pair.id for pair in layout.pairs] == ["a"]
    with pytest.raises(InputError, match=f"{home}/tfds/"):
        prepare("mnist_corrupted/no", "~/tfds")
    config = base.get_config()
    config.data.update({"source": "folder", "path": "~/set", "splits": "~/no.json"})
    with pytest.raises(InputError) as caught:
        open_dataset(config, home / "set/../run")
    assert f"{home}/no.json" in str([caught.value, *caught.value.details])
    with pytest.raises(InputError, match=r"is data\.path"):
        open_dataset(config, home / "set")
