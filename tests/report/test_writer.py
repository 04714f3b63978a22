import json
import os
import stat

import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.report.writer import MetricWriter, trim
from unet_jax.runtime.atomic import atomic_path


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def _events(workdir):
    """Scalars by tag as TensorBoard shows them, without purged steps."""
    from tensorboardX.proto import event_pb2

    scalars = {}
    for path in sorted(workdir.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            event = event_pb2.Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            if event.session_log.status == event_pb2.SessionLog.START:
                for values in scalars.values():
                    for step in [s for s in values if s >= event.step]:
                        del values[step]
            for value in event.summary.value:
                scalars.setdefault(value.tag, {})[event.step] = value.simple_value
    return scalars


def test_numbers_of_every_library_become_json(tmp_path):
    writer = MetricWriter(tmp_path)
    values = {
        "loss": jnp.float32(0.5),
        "dice/a": np.float64(0.25),
        "count": np.int32(3),
    }
    writer.write(7, "train", values)
    writer.write(7, "val", {"loss": float("nan"), "dice": jnp.inf, "iou": 1})
    writer.write_timing(7, {"seconds": 1.5})
    writer.close()
    assert _lines(tmp_path / "metrics.jsonl") == [
        {"step": 7, "split": "train", "loss": 0.5, "dice/a": 0.25, "count": 3},
        {"step": 7, "split": "val", "loss": None, "dice": None, "iou": 1},
    ]
    assert _lines(tmp_path / "timing.jsonl") == [{"step": 7, "seconds": 1.5}]


def test_lines_are_on_file_before_the_writer_is_closed(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(1, "train", {"loss": 0.5})
    assert _lines(tmp_path / "metrics.jsonl") == [
        {"step": 1, "split": "train", "loss": 0.5}
    ]
    assert _events(tmp_path) == {"train/loss": {1: 0.5}}
    writer.write_timing(1, {"seconds": 2.0})
    assert _events(tmp_path) == {"train/loss": {1: 0.5}, "timing/seconds": {1: 2.0}}
    writer.close()


def test_tensorboard_gets_the_scalars(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(3, "val", {"dice": 0.75, "loss": float("nan")})
    writer.write_timing(3, {"images_per_second": 12.5})
    writer.close()
    scalars = _events(tmp_path)
    assert scalars == {"val/dice": {3: 0.75}, "timing/images_per_second": {3: 12.5}}


def test_a_resumed_run_writes_the_file_of_an_uninterrupted_run(tmp_path):
    def run(folder, steps, **options):
        writer = MetricWriter(folder, **options)
        for step in steps:
            writer.write(step, "train", {"loss": 1 / step})
            writer.write_timing(step, {"seconds": 0.5})
        writer.close()

    run(tmp_path / "alone", range(1, 7))
    run(tmp_path / "killed", range(1, 6))
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "spl')
    run(tmp_path / "killed", range(4, 7), resume_step=3)
    for name in ("metrics.jsonl", "timing.jsonl"):
        alone = (tmp_path / "alone" / name).read_bytes()
        assert (tmp_path / "killed" / name).read_bytes() == alone
    scalars = _events(tmp_path / "killed")
    assert sorted(scalars["train/loss"]) == [1, 2, 3, 4, 5, 6]


def test_resuming_from_the_start_cuts_everything(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(1, "train", {"loss": 1.0})
    writer.close()
    MetricWriter(tmp_path, resume_step=0).close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


@pytest.mark.parametrize(
    "half",
    [b'{"step": 1, "split": "tr', b'{"step": 1}', b'{"name": "\xc3', b"\x00\x00\x00"],
)
def test_trim_drops_half_lines(tmp_path, half):
    path = tmp_path / "metrics.jsonl"
    whole = b'{"step": 1, "split": "train"}\n{"step": 2, "split": "train"}\n'
    path.write_bytes(whole + half)
    trim(tmp_path, 2)
    assert path.read_bytes() == whole
    trim(tmp_path, 1)
    assert path.read_bytes() == whole[: len(whole) // 2]


def test_trim_does_not_change_a_file_without_later_lines(tmp_path):
    path = tmp_path / "timing.jsonl"
    path.write_text('{"step": 1}\n')
    before = path.stat().st_ino
    trim(tmp_path, 1)
    assert path.stat().st_ino == before
    assert [p.name for p in tmp_path.iterdir()] == ["timing.jsonl"]


def test_atomic_path_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "folder" / "figure.png"
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".png"
        temporary.write_text("old")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["figure.png"]


def test_atomic_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_text("")
    with atomic_path(tmp_path / "ours") as temporary:
        temporary.write_text("")
    usual, ours = (os.stat(tmp_path / n).st_mode for n in ("usual", "ours"))
    assert stat.S_IMODE(ours) == stat.S_IMODE(usual)
