import contextlib
import io
import os

from unet_jax.report.progress import Progress, ReadingBar


class _Terminal(io.StringIO):
    def isatty(self):
        return True


class _Clock:
    now = 100.0

    def __call__(self):
        return self.now


def _run(steps, *, seconds, total=None, **options):
    stream, clock = io.StringIO(), _Clock()
    progress = Progress(
        total or steps[-1], images_per_step=8, stream=stream, clock=clock, **options
    )
    for step in steps:
        clock.now += seconds
        progress.update(step, loss=1 / step)
    progress.close()
    return stream.getvalue().splitlines()


def test_plain_lines_come_at_every_tenth():
    lines = _run(range(1, 201), seconds=0.1, interval=1e9)
    assert len(lines) == 10
    assert lines[0] == "step 20/200 (10 %), loss 0.05, 80.0 images/s, ETA 00:18"
    assert lines[-1] == "step 200/200 (100 %), loss 0.005, 80.0 images/s, ETA 00:00"


def test_plain_lines_come_after_every_interval():
    lines = _run(range(1, 8), seconds=10.0, total=1000, interval=30.0)
    assert [line.split()[1] for line in lines] == ["3/1000", "6/1000"]
    assert lines[1].endswith("0.8 images/s, ETA 2:45:40")


def test_the_first_step_which_compiles_does_not_spoil_the_rate():
    stream, clock = io.StringIO(), _Clock()
    progress = Progress(10, images_per_step=4, stream=stream, clock=clock)
    clock.now += 60.0
    progress.update(1)
    clock.now += 2.0
    progress.update(2)
    first, second = stream.getvalue().splitlines()
    assert first == "step 1/10 (10 %), first step done"
    assert second == "step 2/10 (20 %), 2.0 images/s, ETA 00:16"


def test_a_resumed_run_counts_its_own_steps_alone():
    lines = _run(range(151, 201), seconds=0.5, initial=150, interval=1e9)
    assert [line.split()[1] for line in lines] == ["160/200", "180/200", "200/200"]
    assert "16.0 images/s, ETA 00:20" in lines[0]


def test_the_last_score_and_loss_stay():
    stream, clock = io.StringIO(), _Clock()
    progress = Progress(3, images_per_step=1, stream=stream, clock=clock)
    for step, values in enumerate([{"loss": 0.5}, {"score": 0.91234}, {}], start=1):
        clock.now += 1.0
        progress.update(step, **values)
    assert (
        "loss 0.5, val Dice 0.9123, 1.0 images/s" in stream.getvalue().splitlines()[2]
    )


def test_a_terminal_gets_a_bar_with_the_same():
    stream, clock = _Terminal(), _Clock()
    with Progress(4, images_per_step=2, stream=stream, clock=clock) as progress:
        for step in range(1, 5):
            clock.now += 0.5
            progress.update(step, loss=0.25, score=0.75)
        progress.write("a message")
    text = stream.getvalue()
    assert "4/4" in text
    assert "loss 0.25, val Dice 0.7500, 4.0 images/s, ETA 00:00" in text
    assert "a message\n" in text
    assert text.endswith("\n")


def test_messages_go_between_plain_lines():
    stream = io.StringIO()
    Progress(4, images_per_step=2, stream=stream).write("a message")
    assert stream.getvalue() == "a message\n"


def test_a_terminal_without_a_width_gets_plain_lines():
    leader, follower = os.openpty()  # its size is 0 x 0
    with open(follower, "w") as stream:
        with Progress(1, images_per_step=2, stream=stream) as progress:
            progress.update(1, loss=0.5)
        shown = os.read(leader, 1000)
    os.close(leader)
    assert shown == b"step 1/1 (100 %), loss 0.5\r\n"


def test_reading_shows_plain_lines_where_it_takes_long():
    stream, clock = io.StringIO(), _Clock()
    with contextlib.closing(ReadingBar(stream=stream, clock=clock)) as bar:
        for done in range(1, 26):
            clock.now += 1.0
            bar.step(done, 1000)
    assert stream.getvalue().splitlines() == [
        "reading     10 of 1000 cases",
        "reading     20 of 1000 cases",
    ]


def test_reading_has_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setattr("unet_jax.report.progress._has_no_width", lambda stream: False)
    stream = _Terminal()
    with contextlib.closing(ReadingBar(stream=stream)) as bar:
        bar.step(1, 4)
        bar._bar.delay = 0.0
        bar._bar.mininterval = 0.0
        bar.step(3, 4)
    assert "reading" in stream.getvalue()
    assert "3/4" in stream.getvalue()
