from unet_jax.data.case import Extent
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
        extents={"train": Extent(groups=30, images=180)},
    )
    lines = text.splitlines()
    assert lines[1] == "model       unet_tiny, 1,234,567 parameters"
    assert lines[2] == "step        2.5 GFLOP, 3 MiB on each device"
    assert lines[3] == (
        "train       90 cases of 30 groups, 180 images: sky 100.0 % (in 64 of them)"
    )
    assert lines[4] == "test        1 case: sky 25.0 %, sea 75.0 %"
    bare = run_summary(model="m", parameters=1, step_cost={}, splits={}, extents={})
    assert len(bare.splitlines()) == 2


def test_a_class_that_no_case_of_a_split_has_is_told():
    splits = {
        "validation": ClassFractions(2, 2, {"sky": 1.0, "sea": 0.0, "sun": 0.0}),
        "test": ClassFractions(90, 64, {"sky": 1.0, "sea": 0.0}),  # not all counted
    }
    text = run_summary(model="m", parameters=1, step_cost={}, splits=splits, extents={})
    (line,) = [one for one in text.splitlines() if "WARNING" in one]
    assert "no case of validation has sea, sun" in line
