import dataclasses
import itertools

import pytest

from unet_jax.errors import InputError
from unet_jax.planning.chips import growing_slices, parse_topology
from unet_jax.planning.cost import StepCost
from unet_jax.planning.program import ProgramCost
from unet_jax.planning.scaling import (
    HOP_SECONDS,
    all_reduce_seconds,
    largest_batch,
    second_batch,
    sent_bytes,
    step_speed,
)

V5E = parse_topology("v5e:4x4")
V5P = parse_topology("v5p:2x2x4")
COST = StepCost(
    flops=197e9,
    memory_bytes=1e9,
    program=ProgramCost(
        cycles=3_006_592, hbm_bytes=10**9, all_reduces=10, all_reduce_bytes=10**8
    ),
)


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        (None, "found nothing, expected a kind of TPU and the shape"),
        ("", "found nothing, expected a kind of TPU and the shape"),
        ("v5e", "found 'v5e', expected a kind"),
        ("v5e:", "found 'v5e:', expected a kind"),
        ("v5e:4x", "found 'v5e:4x', expected a kind"),
        ("v5e:4×4", "found 'v5e:4×4', expected a kind"),  # noqa: RUF001
        ("v5e:0x4", "found 'v5e:0x4', expected a kind"),
        ("gpu:2x2", "such as v5e:4x4 or v5p:2x2x1"),
        ("v5e:4x4x4", "with 3 axes, expected 2 for v5e, such as v5e:2x2"),
        ("v5p:4x4", "with 2 axes, expected 3 for v5p, such as v5p:2x2x1"),
        ("v5e:1x4", "expected even sizes on the first two axes"),
        ("v5e:2x3", "expected even sizes on the first two axes"),
        ("v5e:32x16", "at most 256 chips"),
    ],
)
def test_an_unknown_topology_is_refused(topology, message):
    with pytest.raises(InputError) as caught:
        parse_topology(topology)
    assert str(caught.value).startswith("--topology: found")
    assert message in str(caught.value)


def test_slices_double_up_to_a_pod():
    assert [one.name for one in growing_slices(V5E.chip)] == [
        "v5e:2x2",
        "v5e:2x4",
        "v5e:4x4",
        "v5e:4x8",
        "v5e:8x8",
        "v5e:8x16",
        "v5e:16x16",
    ]
    assert [one.chips for one in growing_slices(V5P.chip)] == [
        4,
        8,
        16,
        32,
        64,
        128,
        256,
    ]
    for chip in (V5E.chip, V5P.chip):
        for one in growing_slices(chip):
            assert parse_topology(one.name) == one


def test_the_clock_follows_from_the_peak():
    assert V5E.chip.cycles_per_second == pytest.approx(1.5e9, rel=0.01)
    assert V5P.chip.cycles_per_second == pytest.approx(1.75e9, rel=0.01)


@pytest.mark.parametrize(
    ("points", "limit", "multiple", "expected"),
    [
        (((1, 2.0), (3, 4.0)), 10.0, 1, 9),  # 1 + 1 a crop
        (((1, 2.0), (3, 4.0)), 10.9, 1, 9),
        (((1, 2.0), (3, 4.0)), 10.0, 2, 8),
        (((1, 2.0), (9, 12.0)), 10.0, 1, 7),  # the second did not fit
        (((1, 9.9), (2, 10.1)), 10.0, 1, 1),
        (((4, 12.0), (8, 24.0)), 10.0, 1, 3),  # neither fitted
        (((4, 50.0), (8, 51.0)), 10.0, 1, 0),
        (((2, 9.0), (4, 9.0)), 10.0, 2, 4),  # no growth: a crop counts as a byte
    ],
)
def test_the_largest_batch_lies_on_the_line(points, limit, multiple, expected):
    found = largest_batch(points, hbm_bytes=limit, multiple=multiple)
    assert found == expected


def test_the_second_batch_fills_the_memory_beside_the_state():
    chip = dataclasses.replace(V5E.chip, hbm_bytes=1000.0, vmem_bytes=10.0)

    def second(rows, memory, multiple=1):
        return second_batch(rows, memory, fixed_bytes=100, chip=chip, multiple=multiple)

    assert second(1, 190) == 9  # (1000 - 100) / (90 + 10)
    assert second(2, 190, multiple=4) == 16
    assert second(1, 600) == 2  # one more, which may fail: 1100 of 1000
    assert second(1, 700) is None  # one more would need 1300
    assert second(4, 700, multiple=2) == 6  # two more, 1000
    assert second(8, 1790) == 4  # of 8, which did not fit
    assert second(2, 1001) == 1
    assert second(1, 1001) is None
    assert second(4, 4000, multiple=4) is None
    assert second(1, 60) == 90  # all of it on the chip itself


def test_the_exchanges_are_those_of_a_ring():
    assert sent_bytes(COST, V5E) == pytest.approx(2 * 15 / 16 * 1e8)
    seconds = all_reduce_seconds(COST, V5E)
    latency = 10 * 2 * (3 + 3) * HOP_SECONDS
    assert seconds == pytest.approx(2 * 15 / 16 * 1e8 / 100e9 + latency)
    latency = 10 * 2 * (1 + 1 + 3) * HOP_SECONDS
    assert all_reduce_seconds(COST, V5P) == pytest.approx(
        2 * 15 / 16 * 1e8 / 200e9 + latency
    )


def test_speed_follows_from_cycles_and_exchanges():
    speed = step_speed(COST, V5E, rows=4)
    assert speed.compute_seconds == pytest.approx(
        3_006_592 / V5E.chip.cycles_per_second
    )
    assert speed.seconds == speed.compute_seconds + all_reduce_seconds(COST, V5E)
    assert speed.crops_per_second == pytest.approx(64 / speed.seconds)
    assert speed.utilisation == pytest.approx(1e-3 / speed.seconds)


def test_efficiency_falls_and_speed_grows_with_the_slice():
    speeds = [step_speed(COST, one, rows=4) for one in growing_slices(V5E.chip)]
    for small, large in itertools.pairwise(speeds):
        assert large.seconds > small.seconds
        assert large.crops_per_second > small.crops_per_second
        assert large.compute_seconds == small.compute_seconds
