"""Plans against those of nnU-Net 2.8.1's own planners.

`benchmarks/golden_plans.py` made the numbers.
"""

import dataclasses
import json
import pathlib

import pytest

from unet_jax.nnunet.planner import DatasetFingerprint, plan_dataset
from unet_jax.nnunet.stages import choose_stages

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden_plans.json").read_text())
PRESETS = ("plain", "resenc_m", "resenc_l", "resenc_xl", "small")


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def fingerprint_of(name, **changes):
    """Return a golden fingerprint."""
    values = GOLDEN["cases"][name]["fingerprint"] | changes
    return DatasetFingerprint(**{key: _tuples(value) for key, value in values.items()})


def _plan(data, preset):
    if preset == "small":
        return plan_dataset(data, gib=GOLDEN["small_gib"])
    return plan_dataset(data, preset=preset)


def test_the_data_sets_are_of_many_kinds():
    kinds = {
        name: set(case["plans"]["plain"]["configurations"])
        for name, case in GOLDEN["cases"].items()
    }
    assert kinds["isotropic_ct"] == {"2d", "3d_fullres", "3d_lowres"}
    assert kinds["anisotropic_mr"] == {"2d", "3d_fullres"}
    assert kinds["pictures_rgb"] == {"2d"}
    assert len(kinds) >= 6


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", GOLDEN["cases"])
def test_plans_are_those_of_nnunet(name, preset):
    golden = GOLDEN["cases"][name]["plans"][preset]
    plan = _plan(fingerprint_of(name), preset)
    assert plan.axes == tuple(golden["transpose_forward"])
    assert plan.normalization == tuple(golden["normalization_schemes"])
    assert plan.masked == tuple(golden["use_mask_for_norm"])
    assert plan.cascade == golden["cascade"]
    assert set(plan.configurations) == set(golden["configurations"])
    for key, expected in golden["configurations"].items():
        found = dataclasses.asdict(plan.configurations[key])
        assert found.pop("name") == key
        expected = {name: _tuples(value) for name, value in expected.items()}
        # By choice ours lie between the stages: nnU-Net has ones before the first too.
        assert set(expected["strides"][0]) == {1}
        expected["strides"] = expected["strides"][1:]
        assert {key: found[key] for key in expected} == expected


def test_a_network_gets_no_more_stages_than_its_patch_has_pixels_for():
    stages = choose_stages((1.0, 1.0, 1.0), (7, 7, 7))
    assert stages.strides == ()
    assert stages.kernel_sizes == ((3, 3, 3),)
    # One axis alone is halved only if three times the least size are left.
    assert choose_stages((1.0, 1.0), (8, 7)).strides == ()
    assert choose_stages((1.0, 1.0), (12, 7)).strides == ((2, 1),)


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="Unknown preset 'huge'; expected one of"):
        plan_dataset(fingerprint_of("tiny_volumes"), preset="huge")
