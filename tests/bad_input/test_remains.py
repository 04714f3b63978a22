"""Tests damaged files of a run: records, checkpoints, scores."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.bad_input.contents import GREY, Malicious
from tests.bad_input.given import predict_command, train_command
from unet_jax.training import manifest
from unet_jax.training.manifest import write_sums

pytestmark = pytest.mark.slow  # some 300 commands in all


def _change_record(**parts):
    """Return a function that changes parts of config.json, by dotted key."""

    def change(path):
        record = json.loads(path.read_text())
        for key, value in parts.items():
            *sections, name = key.split("__")
            at = record
            for section in sections:
                at = at[section]
            at[name] = value
        path.write_text(json.dumps(record))

    return change


def _without_key(path):
    record = json.loads(path.read_text())
    del record["config"]["train"]["patch_size"]
    path.write_text(json.dumps(record))


_NO_RECORD = "{here}/run/config.json: not the record of a run (<any>); name another "
_ODD = (
    "{here}/run/config.json: does not describe a run (<any>); restore the file, or use "
    "the version of unet_jax that wrote it"
)
RECORDS = {
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:99]), _NO_RECORD + "--workdir"),
    "empty": (lambda p: p.write_text(""), _NO_RECORD + "--workdir"),
    "no text": (lambda p: p.write_bytes(b"\xff\xfe{}"), _NO_RECORD + "--workdir"),
    "a list": (lambda p: p.write_text("[]"), _NO_RECORD + "--workdir"),
    "a string": (_change_record(config="x"), _NO_RECORD + "--workdir"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), _NO_RECORD + "--workdir"),
    "of a newer kind": (
        _change_record(format=2),
        "{here}/run/config.json: is of format 2, expected at most 1: a newer unet_jax "
        "wrote it; update this one, or name another --workdir",
    ),
    "without a key": (_without_key, _ODD),
    "another type": (_change_record(config__train__steps="many"), _ODD),
    "out of range": (_change_record(config__eval__overlap=7), _ODD),
    "another preprocessing": (_change_record(preprocessing__intensity="x"), _ODD),
    "more preprocessing": (_change_record(preprocessing__new=1), _ODD),
    "no section": (_change_record(config__data=3), _ODD),
}
OF_A_RUN = ["evaluate", "predict", "compare"]


def _of_a_run(mode, place):
    if mode == "predict":
        return predict_command(place, place / "data/images"), None
    return [f"--mode={mode}", f"--workdir={place / 'run'}"], place / "run"


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("mode", OF_A_RUN)
def test_a_record_that_is_none(place, refused, mode, name):
    change, line = RECORDS[name]
    change(place / "run/config.json")
    command, workdir = _of_a_run(mode, place)
    refused(line, *command, workdir=workdir)


@pytest.mark.parametrize("name", list(RECORDS)[:7])
def test_training_does_not_go_on_from_no_record(place, refused, name):
    change, line = RECORDS[name]
    change(place / "run/config.json")
    command = train_command(place, f"--workdir={place / 'run'}")
    refused(line, *command, workdir=place / "run")


def _arrays(run):
    """Find the largest file of the only checkpoint: the arrays."""
    files = [path for path in (run / "checkpoints").rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _pickled(run, *, sealed):
    """Replace every file of the arrays by a pickle, with a matching checksum."""
    (step,) = [path for path in (run / "checkpoints").iterdir() if path.is_dir()]
    for path in (step / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(pickle.dumps(Malicious()))
    if sealed:
        write_sums(step)


def _other_network(run):
    change = _change_record(
        config__model__features=[2, 6], config__model__base_features=2
    )
    change(run / "config.json")


_STEP = "{here}/run/checkpoints/2"
_AWAY = manifest.FIX
CHECKPOINTS = {
    "missing": (
        lambda run: shutil.rmtree(run / "checkpoints"),
        "{here}/run/checkpoints: no checkpoint; found none; train first or name the "
        "workdir of a run that has one",
    ),
    "none in its folder": (
        lambda run: shutil.rmtree(run / "checkpoints/2"),
        "{here}/run/checkpoints: no checkpoint; found none; train first or name the "
        "workdir of a run that has one",
    ),
    "cut": (
        lambda run: os.truncate(_arrays(run), 100),
        f"{_STEP}<any>: the file is changed since it was written; {_AWAY}",
    ),
    "a bit flipped": (
        lambda run: _flip(_arrays(run)),
        f"{_STEP}<any>: the file is changed since it was written; {_AWAY}",
    ),
    "a file missing": (
        lambda run: _arrays(run).unlink(),
        f"{_STEP}<any>: the file is missing; {_AWAY}",
    ),
    "no sums": (
        lambda run: (run / "checkpoints/2/sha256.json").unlink(),
        f"{_STEP}/sha256.json: the checkpoint cannot be read (<any>); {_AWAY}",
    ),
    "sums that are none": (
        lambda run: (run / "checkpoints/2/sha256.json").write_text("[1]"),
        f"{_STEP}/sha256.json: the checkpoint cannot be read (<any>); {_AWAY}",
    ),
    "its record cut": (
        lambda run: (run / "checkpoints/2/run/run.json").write_text("{"),
        f"{_STEP}/run/run.json: the checkpoint cannot be read (<any>); {_AWAY}",
    ),
    "a pickle": (
        lambda run: _pickled(run, sealed=False),
        f"{_STEP}<any>: the file is changed since it was written; {_AWAY}",
    ),
    "a pickle with its sum": (
        lambda run: _pickled(run, sealed=True),
        f"{_STEP}: the checkpoint cannot be read (<any>); {_AWAY}",
    ),
    "another network's": (
        _other_network,
        f"{_STEP}: the checkpoint does not fit this network and optimizer: <any>; use "
        "the config of that run, or init_from in a new workdir",
    ),
    "the clusters of the classes cut": (
        lambda run: (run / "clusters.json").write_text("{"),
        "{here}/run/clusters.json: cannot be read (<any>); restore it, or move it away "
        "and run the training command again, which writes it",
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("mode", OF_A_RUN)
def test_a_checkpoint_that_is_none(place, refused, mode, name):
    change, line = CHECKPOINTS[name]
    change(place / "run")
    command, workdir = _of_a_run(mode, place)
    refused(line, *command, workdir=workdir)
    assert not Path("malicious").exists()


def test_training_does_not_start_over_a_lost_checkpoint(place, refused):
    _flip(_arrays(place / "run"))
    refused(
        "{here}/run/checkpoints: no checkpoint is whole (<any>: the file is changed "
        "since it was written); restore one from a copy, or name another --workdir to "
        "start again",
        *train_command(place, f"--workdir={place / 'run'}"),
        workdir=place / "run",
    )


@pytest.mark.parametrize(
    "content",
    ['{"per_case": [', "[]", '{"per_case": 3}', '{"per_case": [{"id": "a"}]}', None],
)
def test_scores_that_are_none(place, refused, content):
    scores = place / "run/test_metrics.json"
    scores.unlink()
    if content is not None:
        scores.write_text(content)
    shutil.copytree(place / "run", place / "run2")
    refused(
        "{here}/run/test_metrics.json: cannot be read (<any>); expected the scores of "
        "a finished run; make them with --mode=evaluate --workdir={here}/run",
        "--mode=compare",
        f"--runs={place}/run,{place}/run2",
        f"--workdir={place}/both",
    )


@pytest.mark.parametrize("mode", ["evaluate", "compare"])
@pytest.mark.parametrize("content", ["cut", "[]", "tampered", "types"])
def test_a_scan_cache_that_is_none_is_written_again(place, command_line, mode, content):
    """A damaged cache is replaced without a message."""
    cache = place / "run/dataset.json"
    whole = cache.read_text()
    if content == "cut":
        cache.write_text(whole[: len(whole) // 2])
    elif content == "[]":
        cache.write_text("[]")
    else:
        kept = json.loads(whole)
        for entry in kept["cases"].values():
            entry["traits"]["shape"] = [7, 7] if content == "tampered" else 3
            if content == "tampered":
                entry["stamp"][0][2] = 1
        cache.write_text(json.dumps(kept))
    # The data have a problem that only a new reading finds.
    Image.fromarray(GREY).save(place / "data/images/0.png")
    answer = command_line(f"--mode={mode}", f"--workdir={place}/run")
    assert answer.code == 2
    assert "the data changed since its run began" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert json.loads(cache.read_text())["cases"]["0"]["traits"]["shape"] == [24, 24]
