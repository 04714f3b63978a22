from unet_jax.data.class_fractions import ClassFractions
from unet_jax.report.summary import run_summary


def test_the_summary_names_what_it_knows():
    split = ClassFractions(cases=1, counted=1, fractions={"sky": 0.25, "sea": 0.75})
    large = ClassFractions(cases=90, counted=64, fractions={"sky": 1.0})
    text = run_summary(
        model="unet_tiny",
        parameters=1234567,
        step_cost={"flops": 2.5e9, "memory_bytes": 3 * 2**20},
        splits={"train": large, "test": split},
    )
    lines = text.splitlines()
    assert lines[1] == "model       unet_tiny, 1,234,567 parameters"
    assert lines[2] == "step        2.5 GFLOP, 3 MiB on each device"
    assert lines[3] == "train       90 cases: sky 100.0 % (in 64 of them)"
    assert lines[4] == "test        1 case: sky 25.0 %, sea 75.0 %"
    bare = run_summary(model="m", parameters=1, step_cost={}, splits={})
    assert len(bare.splitlines()) == 2
