"""Random files, changed files and random options: nothing but InputError escapes."""

import gzip
import io
import json
import tempfile
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from PIL import Image

from unet_jax.configs import base, folder
from unet_jax.data.files.read import read_image, read_label
from unet_jax.data.folder.layouts import find_layout
from unet_jax.data.folder.listing import list_files
from unet_jax.data.folder.pairing import Naming
from unet_jax.data.folder.split_files import read_splits
from unet_jax.errors import InputError
from unet_jax.experiment.check import check_config
from unet_jax.experiment.record import flat_config, read_record

few = settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,  # a failure in CI must be there tomorrow, too
    suppress_health_check=list(HealthCheck),
)


def _files():
    """A whole file of every format."""
    grey = np.random.default_rng(0).integers(0, 3, (9, 11), dtype=np.uint8)
    color = np.stack([grey] * 3, axis=-1)
    whole = {}
    suffixes = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "GIF": ".gif"}
    for form, suffix in suffixes.items():
        buffer = io.BytesIO()
        Image.fromarray(color).save(buffer, form)
        whole[suffix] = buffer.getvalue()
    buffer = io.BytesIO()
    palette = Image.frombytes("P", (11, 9), grey.tobytes())
    palette.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
    palette.save(buffer, "PNG")
    whole["palette.png"] = buffer.getvalue()
    for name, options in (
        (".tif", {}),
        ("packed.tif", {"compression": "zlib"}),
        ("imagej.tif", {"imagej": True, "metadata": {"spacing": 2, "unit": "mm"}}),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, grey, photometric="minisblack", **options)
        whole[name] = buffer.getvalue()
    volume = nibabel.Nifti1Image(np.zeros((5, 4, 3), np.int16), np.eye(4))
    whole[".nii"] = volume.to_bytes()
    whole[".nii.gz"] = gzip.compress(volume.to_bytes(), mtime=0)
    return whole


WHOLE = _files()


def _tried(function, *arguments, **options):
    """Return what a function gives, or None and the one error that is allowed."""
    try:
        return function(*arguments, **options), ""
    except InputError as error:
        return None, str(error)


def _read(name, content):
    """Read a file as an image and as a mask; one may be fine, or refused."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"a{name}"
        path.write_bytes(content)
        for read in (read_image, read_label):
            stored, line = _tried(read, path)
            if stored is None:
                assert str(path) in line
                assert "; " in line
            else:
                assert stored.image.size
                assert stored.image.dtype.kind in "uif"
        assert list(Path(place).iterdir()) == [path]
        assert path.read_bytes() == content


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_are_read(tmp_path, name):
    path = tmp_path / f"a{name}"
    path.write_bytes(WHOLE[name])
    assert read_image(path).image.size


@pytest.mark.parametrize("name", WHOLE)
@few
@given(data=st.data())
def test_changed_files(name, data):
    content = bytearray(WHOLE[name])
    for _ in range(data.draw(st.integers(1, 4))):
        # Headers say what the rest means: half of the changes fall there.
        end = data.draw(st.sampled_from([min(len(content), 120), len(content)]))
        place = data.draw(st.integers(0, max(end - 1, 0)))
        match data.draw(st.sampled_from(["set", "cut", "insert", "remove"])):
            case "set":
                content[place : place + 1] = data.draw(
                    st.binary(min_size=1, max_size=4)
                )
            case "cut":
                del content[place:]
            case "insert":
                content[place:place] = data.draw(st.binary(min_size=1, max_size=9))
            case "remove":
                del content[place : place + data.draw(st.integers(1, 9))]
    _read(name, bytes(content))


@pytest.mark.parametrize("name", [".png", ".jpg", ".bmp", ".tif", ".nii", ".nii.gz"])
@few
@given(content=st.binary(max_size=400), magic=st.booleans())
def test_random_bytes(name, content, magic):
    start = WHOLE[name][: 352 if ".nii" in name else 8]
    _read(name, (start if magic else b"") + content)


@few
@given(content=st.binary(max_size=200))
def test_a_zipped_volume_of_random_bytes(content):
    _read(".nii.gz", gzip.compress(WHOLE[".nii"][:200] + content))


stems = st.lists(
    st.sampled_from(["a", "b", "\u00e9", "e\u0301", "1", "12", " (2)", "_", "-", "/"])
    | st.sampled_from(
        ["_mask", "_seg", "_t1", "_t2", "_0000", "_0001", "mask", "\udcfc"]
    ),
    min_size=1,
    max_size=4,
).map("".join)


@settings(few, max_examples=40)
@given(
    images=st.sets(stems, max_size=6),
    masks=st.sets(stems, max_size=6),
    places=st.sampled_from(
        [("", ""), ("images/", "masks/"), ("p/images/", "p/masks/")]
    ),
    naming=st.builds(
        Naming,
        channels=st.sampled_from([(), ("_t1", "_t2"), ("t1/", ""), ("", "_t1")]),
        join_masks=st.booleans(),
    ),
    stack=st.booleans(),
)
def test_names_of_any_kind(images, masks, places, naming, stack):
    with tempfile.TemporaryDirectory() as place:
        for folder, found in zip(places, (images, masks), strict=True):
            for stem in found:
                file = Path(place) / f"{folder}{stem.strip('/')}.png"
                assume(not any(above.suffix for above in file.parents))
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
        layout, line = _tried(
            find_layout, Path(place), images="", masks="", naming=naming, stack=stack
        )
        if layout is None:
            assert line.startswith(("data.", place))
            return
        ids = [pair.id for pair in layout.pairs]
        assert len(set(ids)) == len(ids)
        pairs = (*layout.pairs, *layout.orphans)
        files = [file for pair in pairs for file in (*pair.images, *pair.masks)]
        assert len(set(files)) == len(files), "no file is in two cases"
        assert all(file.is_file() for file in files)
        if not naming.channels and not layout.problems:
            assert len(files) == len(list_files(Path(place))), "no file is lost"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["train", "val", "test", "config", "dataset", "a"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@few
@given(content=json_values, fold=st.integers(-1, 3))
def test_splits_of_any_json(content, fold):
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "splits.json"
        path.write_text(json.dumps(content))
        found, line = _tried(read_splits, path, fold=fold)
        assert found.ids["train"] if found else str(path) in line


@few
@given(
    content=st.binary(max_size=80)
    | st.text(alphabet='id,split\n train"\0', max_size=60).map(str.encode)
)
def test_splits_of_any_table(content):
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "splits.csv"
        path.write_bytes(content)
        found, line = _tried(read_splits, path, fold=-1)
        assert found or str(path) in line


@few
@given(content=json_values)
def test_records_of_any_json(content):
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "config.json").write_text(json.dumps(content))
        found, line = _tried(read_record, Path(place))
        assert found or "config.json" in line


KEYS = sorted(flat_config(base.get_config().to_dict()))
numbers = st.integers(-5, 5) | st.integers() | st.floats()
values = (
    st.none()
    | st.booleans()
    | numbers
    | st.text(max_size=6)
    | st.lists(numbers | st.text(max_size=2), max_size=4).map(tuple)
    | st.lists(st.lists(numbers, max_size=3).map(tuple), max_size=3).map(tuple)
)


@pytest.mark.parametrize("module", [base, folder], ids=["base", "folder"])
@settings(few, max_examples=150)
@given(key=st.sampled_from(KEYS), value=values)
def test_a_key_of_any_value(module, key, value):
    config: ConfigDict = module.get_config()
    # What the command line lets through: values of the key's own type.
    try:
        config.update_from_flattened_dict({key: value})
    except (TypeError, ValueError):
        assume(False)
    _, line = _tried(check_config, config)
    assert "\n" not in line


arguments = st.one_of(
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9
    ),
    st.builds(
        "--config.{}={}".format,
        st.sampled_from(KEYS) | st.text("abc._", max_size=8),
        st.sampled_from(["", "1", "-1", "x", "(1,", "((", "{}", "None", "1e999", "'"])
        | st.text("0123(),'.e-", max_size=8),
    ),
    st.builds(
        "--{}={}".format,
        st.sampled_from(["mode", "profile", "num_processes", "debugg", "overwrite"]),
        st.text("0123:x", max_size=5),
    ),
)


@settings(few, max_examples=100)
@given(more=st.lists(arguments, min_size=1, max_size=3))
def test_any_command_line(command_line, more):
    # Without a workdir to predict for, whatever can be parsed ends there.
    assume(not any(part.startswith(("--debug", "-debug")) for part in more))
    assume(not any(part.startswith("--mode") for part in more))
    with warnings.catch_warnings():
        answer = command_line("--config=configs/brain.py", "--mode=predict", *more)
    assert answer.code == 2
    assert answer.stderr.startswith("unet_jax: error: ")
    assert answer.stderr.count("\n") == 1
