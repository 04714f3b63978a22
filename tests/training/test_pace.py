import pytest

from unet_jax.training.pace import ClockPace, StepPace


class _Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def _pace(minutes=10.0, *, clock, record=None, first_step=0):
    return ClockPace(
        minutes,
        schedule_steps=100,
        record=record or {},
        first_step=first_step,
        began=clock.now,
        clock=clock,
    )


def _train(pace, clock, *, seconds, validation, first=1, stop=10**6):
    """Take steps of a fixed time; return the validated steps and the last one."""
    validated = []
    for step in range(first, stop):
        place = pace.place(step)
        clock.now += seconds
        validates, last = pace.after(step)
        if validates:
            clock.now += validation
            pace.validated(validation)
            validated.append(step)
        if last:
            assert validates
            return validated, step, place
    return validated, step, place


def test_steps_are_counted_and_validated_at_fixed_ones():
    pace = StepPace(10, every_steps=4, first_step=0)
    answers = [pace.after(step) for step in range(1, 11)]
    assert [step for step, (one, _) in enumerate(answers, 1) if one] == [4, 8, 10]
    assert [last for _, last in answers] == [False] * 9 + [True]
    assert (pace.place(1), pace.place(10), pace.total_steps) == (0, 9, 10)
    assert not pace.is_over
    assert pace.record() == {}
    assert StepPace(10, every_steps=4, first_step=10).is_over


@pytest.mark.parametrize(
    ("steps", "given", "lines"),
    [
        *((20, None, 20), (60, None, 12), (5, None, 5)),
        *((300, None, 12), (3000, None, 120), (60, 20, 3)),
    ],
)
def test_a_short_run_logs_often_enough_for_a_curve(steps, given, lines):
    pace = StepPace(steps, every_steps=50, first_step=0, log_steps=given)
    assert sum(pace.logs(step) for step in range(1, steps + 1)) == lines


@pytest.mark.parametrize(("seconds", "given"), [(20.0, None), (0.1, None), (0.1, 10)])
def test_a_run_by_the_clock_logs_by_steps_or_time(seconds, given):
    clock = _Clock()
    pace = ClockPace(
        10.0,
        schedule_steps=100,
        record={},
        first_step=0,
        began=clock.now,
        log_steps=given,
        clock=clock,
    )
    lines = []
    for step in range(1, 31):
        clock.now += seconds
        pace.after(step)
        if pace.logs(step):
            lines.append(step)
    # A line of time is due every 15 seconds of these ten minutes.
    assert lines == {20.0: list(range(1, 31)), 0.1: [1, 25]}[seconds] or given
    assert given is None or lines == [10, 20, 30]


@pytest.mark.parametrize("validation", [0.5, 20.0])
def test_the_clock_ends_the_run_with_the_schedule_at_its_end(validation):
    clock = _Clock()
    began, pace = clock.now, _pace(clock=clock)
    clock.now += 30  # data and compilation
    pace.ready()
    validated, last, place = _train(pace, clock, seconds=1.0, validation=validation)
    used = clock.now - began
    assert 570 <= used <= 601
    assert 97 < place <= 99  # of the 100 steps that the schedule is written for
    assert last == validated[-1]
    fraction = len(validated) * validation / used
    assert fraction < 0.2
    assert 3 <= len(validated) <= 10


def test_a_slow_start_costs_neither_warm_up_nor_a_validation():
    clock = _Clock()
    pace = _pace(minutes=5.0, clock=clock)
    clock.now += 100.0  # more than the warm-up, and than the first validation waits
    pace.ready()
    assert pace.place(1) == 0
    clock.now += 2.0
    assert pace.after(1) == (False, False)
    clock.now += 98.0  # half of what was left
    assert pace.place(2) == pytest.approx(99 / 2)
    clock.now += 2.0
    pace.after(2)
    record = pace.record()
    resumed = _pace(minutes=5.0, clock=clock, record=record, first_step=2)
    clock.now += 20.0  # a later start takes its time, but the schedule does not restart
    resumed.ready()
    assert resumed.place(3) == pytest.approx(99 * (222 - 100) / 200)


def test_a_run_goes_on_with_the_time_that_is_left():
    clock = _Clock()
    pace = _pace(clock=clock)
    _, step, place = _train(pace, clock, seconds=1.0, validation=5.0, stop=300)
    record = pace.record()
    clock.now += 10_000  # nothing runs
    resumed = _pace(clock=clock, record=record, first_step=step)
    assert not resumed.is_over
    assert resumed.place(step + 1) == pytest.approx(place, abs=1.0)
    began = clock.now
    _train(resumed, clock, seconds=1.0, validation=5.0, first=step + 1)
    assert record["seconds"] + clock.now - began == pytest.approx(600, abs=10)
    assert _pace(clock=clock, record=resumed.record()).is_over


def test_the_account_adds_up_over_all_starts():
    clock = _Clock()
    pace = _pace(clock=clock)
    clock.now += 30.0
    pace.ready()
    _, step, _ = _train(pace, clock, seconds=1.0, validation=6.0, stop=101)
    record = pace.record()
    clock.now += 10_000  # nothing runs
    pace = _pace(clock=clock, record=record, first_step=step)
    clock.now += 12.0
    pace.ready()
    _train(pace, clock, seconds=3.0, validation=6.0, first=step + 1, stop=step + 11)
    clock.now += 6.0  # the last checkpoint
    assert pace.account() == (
        "3.07 of 10 minutes over 2 starts (the test split comes after them): start "
        "(data, compilation) 0.70, training (110 steps) 2.17, validation and "
        "checkpoints 0.20"
    )


def test_a_run_of_version_0_1_has_an_account_too():
    clock = _Clock()
    record = {"seconds": 300.0, "reserve_seconds": 1.0, "ready_seconds": 60.0}
    pace = _pace(clock=clock, record=record, first_step=50)
    pace.ready()
    assert "over 2 starts" in pace.account()
    assert "start (data, compilation) 1.00, training (50 steps) 4.00" in pace.account()
    assert StepPace(10, every_steps=4, first_step=0).account() == ""


def test_the_number_of_steps_is_estimated_from_their_time():
    clock = _Clock()
    pace = _pace(minutes=1.0, clock=clock)
    assert pace.total_steps == 100
    for step in (1, 2, 3, 4):
        clock.now += 2.0
        pace.after(step)
    assert pace.total_steps == 4 + 26
