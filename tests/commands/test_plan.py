"""A plan from the config to its text, with a stand-in for the TPU compiler."""

import importlib
import pathlib
import re

import jax
import numpy as np
import pytest
from PIL import Image

from unet_jax.commands import plan
from unet_jax.configs import brain_slab, folder, volume_3d
from unet_jax.errors import InputError
from unet_jax.planning.chips import parse_topology
from unet_jax.planning.cost import Compiled, StepCost
from unet_jax.planning.program import ProgramCost
from unet_jax.planning.topology import HbmExceeded

GIB = 2**30
SMALL = {
    "model.name": "unet_tiny",
    "model.options.features": (4, 8),
    "train.patch_size": (16, 16),
    "augment.enabled": False,
}


@pytest.fixture
def compiler(monkeypatch):
    """Stand in for libtpu: a step needs 1 GiB, and 2 GiB a crop of a chip."""
    asked = []

    def compile_step(step, devices, *, state, batch, counted):
        assert counted is not step
        rows = batch["image"].shape[0] // len(devices)
        asked.append({"rows": rows, "shape": batch["image"].shape, "state": state})
        memory = (1 + compile_step.each * rows) * GIB
        if memory > 15.75 * GIB:
            raise HbmExceeded(memory)
        program = ProgramCost(1_500_000 * rows, 10**6, 5, 10**6)
        return StepCost(1e9 * rows, memory, program)

    compile_step.each = 2
    monkeypatch.setattr(plan, "slice_devices", lambda target: [None] * target.chips)
    monkeypatch.setattr(plan, "compile_for_slice", compile_step)
    monkeypatch.setattr(plan.importlib.metadata, "version", lambda name: "1.2")
    compile_step.asked = asked
    return compile_step


def _config(module=brain_slab, **changes):
    config = module.get_config()
    config.update_from_flattened_dict({**SMALL, **changes})
    return config.lock()


def _row(text, title):
    return next(line for line in text.splitlines() if line.startswith(title))


def test_a_plan_takes_two_compilations(compiler, capsys):
    plan.plan_run(_config(**{"train.batch_size": 32}), "v5e:4x4")
    text = capsys.readouterr().out
    assert [one["rows"] for one in compiler.asked] == [2, 6]
    assert compiler.asked[0]["shape"] == (32, 16, 16, 1)
    assert "batch       32 crops of 16 x 16 x 1, 2 a chip\n" in text
    assert _row(text, "a step").split() == ["a", "step", "batch", "32", "batch", "96"]
    assert _row(text, "fits").split() == ["fits", "yes", "yes"]
    assert _row(text, "HBM a chip").split()[3:] == ["5.00", "GiB", "13.00", "GiB"]
    # Seven crops need 15 GiB; eight would need 17.
    assert (
        "largest batch: 112 (7 a chip), derived; a crop takes 2.00 GiB of 15.75 GiB"
        in text
    )
    growth = [line.split() for line in text.splitlines() if line.startswith("v5e:")]
    assert [line[1] for line in growth] == 2 * [
        "4",
        "8",
        "16",
        "32",
        "64",
        "128",
        "256",
    ]
    labels = [line[-1] for line in growth]
    assert labels == 2 * (["estimate"] * 2 + ["compiled"] + ["estimate"] * 4)
    assert growth[-1][2] == "1,536"


def test_a_batch_that_does_not_divide_is_rounded_up_with_a_note(compiler, capsys):
    changes = {"train.batch_size": 8, "train.accumulation": 2}
    plan.plan_run(_config(**changes), "v5e:2x4")
    text = capsys.readouterr().out
    assert compiler.asked[0]["rows"] == 2
    assert (
        "16 crops of 16 x 16 x 1, 2 a chip (train.batch_size=8 does not divide among 8 "
        "chips x train.accumulation 2)" in text
    )
    assert "largest batch: 48 (6 a chip), compiled" in text


def test_a_batch_that_does_not_fit_is_planned_smaller(compiler, capsys):
    plan.plan_run(_config(**{"train.batch_size": 40}), "v5e:2x2")
    text = capsys.readouterr().out
    assert [one["rows"] for one in compiler.asked] == [10, 7]
    assert _row(text, "fits").split() == ["fits", "no", "yes"]
    assert _row(text, "utilisation").split()[1] == "-"
    assert "largest batch: 28 (7 a chip), compiled" in text


def test_a_step_that_cannot_fit_is_reported_after_one_compilation(compiler, capsys):
    compiler.each = 20
    plan.plan_run(_config(**{"train.batch_size": 4}), "v5e:2x2")
    text = capsys.readouterr().out
    assert len(compiler.asked) == 1
    assert "largest batch: none; 1 a chip need 21.00 GiB of 15.75 GiB" in text
    assert "Lower train.patch_size" in text
    assert "estimate" not in text


def test_a_step_that_the_compiler_accepts_must_also_be_within_the_memory():
    # The compiler accepted this batch, but its memory exceeds that of the chip.
    program = ProgramCost(1_500_000, 10**6, 5, 10**6)
    small = Compiled(1, 10 * GIB, StepCost(1e9, 10 * GIB, program))
    large = Compiled(2, 16 * GIB, StepCost(2e9, 16 * GIB, program))
    target = parse_topology("v5e:2x2")
    text = plan.plan_text([small, large], target, multiple=1, fixed_bytes=GIB)
    assert _row(text, "fits").split() == ["fits", "yes", "no"]
    assert _row(text, "cycles").split()[2:] == ["1.50", "M", "1.50", "M"]
    assert "largest batch: 4 (1 a chip), compiled" in text
    assert text.count("v5e:2x2 ") == 1  # no estimate of a batch that does not fit
    alone = plan.plan_text([large], target, multiple=2, fixed_bytes=GIB)
    assert "largest batch: none; 2 a chip need 16.00 GiB of 15.75 GiB" in alone
    assert "estimate" not in alone.partition("largest")[2]


def test_a_batch_that_cannot_be_larger_is_not_compiled_twice(compiler, capsys):
    compiler.each = 12
    plan.plan_run(_config(**{"train.batch_size": 4}), "v5e:2x2")
    text = capsys.readouterr().out
    assert len(compiler.asked) == 1
    assert (
        "largest batch: 4 (1 a chip), compiled; 2 a chip would need 26.00 GiB of "
        "15.75 GiB (estimate)" in text
    )


def test_channels_are_those_of_the_flag(compiler):
    plan.plan_run(_config(), "v5p:2x2x1", channels=3)
    assert compiler.asked[0]["shape"] == (8, 16, 16, 3)


def test_the_state_has_what_the_config_asks_for(compiler):
    plan.plan_run(_config(**{"train.ema_decay": 0.9}), "v5e:2x2")
    state = compiler.asked[0]["state"]
    assert state.ema_params is not None


def test_a_folder_is_read_for_what_the_config_leaves_to_it(compiler, capsys, tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for index in range(6):
        image = rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / f"{index}.png")
        mask = Image.fromarray((image[..., 0] > 127).astype(np.uint8) * 255)
        mask.save(tmp_path / "masks" / f"{index}.png")
    before = sorted(tmp_path.rglob("*"))
    config = folder.get_config()
    config.data.path = str(tmp_path)
    plan.plan_run(config.lock(), "v5e:4x4")
    rows, *patch, channels = compiler.asked[0]["shape"]
    assert rows == 16  # divides by the chips of the slice, not by this machine's
    assert channels == 3
    assert len(patch) == 2
    assert "does not divide" not in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("module", "keys"),
    [
        (
            folder,
            "data.class_names, train.patch_size, train.batch_size, "
            "model.options.features, model.options.norm, "
            "model.options.deep_supervision",
        ),
        (volume_3d, "data.class_names"),
    ],
)
def test_without_data_their_choices_must_be_given(compiler, module, keys):
    with pytest.raises(InputError) as caught:
        plan.plan_run(module.get_config().lock(), "v5e:2x2")
    assert str(caught.value) == (
        "data.path: found nothing, expected a folder of data that decides "
        f"{keys}; give --config.data.path=FOLDER, or these keys"
    )
    assert not compiler.asked


def test_a_config_that_training_refuses_is_refused(compiler):
    with pytest.raises(InputError, match="unknown optimizer 'lion'"):
        plan.plan_run(_config(**{"optimizer.name": "lion"}), "v5e:2x2")
    with pytest.raises(InputError, match=r"train\.steps: found 0"):
        plan.plan_run(_config(**{"train.steps": 0}), "v5e:2x2")
    assert not compiler.asked


def test_weights_by_class_fractions_need_no_data(compiler):
    loss = (("cross_entropy", 1.0, {"class_weights": "inverse_frequency"}),)
    plan.plan_run(_config(loss=loss), "v5e:2x2")
    assert compiler.asked


@pytest.mark.parametrize("name", ["wnet", "lesion", "bone"])
def test_other_configs_can_be_planned(compiler, name):
    config = importlib.import_module(f"unet_jax.configs.{name}").get_config()
    plan.plan_run(config.lock(), "v5e:2x2")
    # Thin volumes are turned in a larger crop, which the step is given.
    drawn = (116, 116, 8) if name == "bone" else tuple(config.train.patch_size)
    assert compiler.asked[0]["shape"][1:-1] == drawn


def test_the_volume_config_is_the_residual_encoder_of_six_stages():
    config = volume_3d.get_config()
    config.data.class_names = ("background", "organ", "lesion")
    _, state = plan._step_and_state(config.lock(), 1)
    assert config.train.patch_size == (128, 128, 128)
    widest = {}
    for path, leaf in jax.tree.leaves_with_path(state.params):
        stage = path[0].key
        if stage.startswith("encoder_") and leaf.ndim == 5:
            widest[stage] = max(widest.get(stage, 0), leaf.shape[-1])
    assert [widest[f"encoder_{n}"] for n in range(6)] == [32, 64, 128, 256, 320, 320]


def test_the_commands_of_the_page_name_configs_and_slices():
    page = (pathlib.Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    commands = re.findall(
        r"--mode=plan --config=(\S+\.py) --topology=(\S+)(?: \\\n +(\S+))?", page
    )
    assert len(commands) == 4
    for path, topology, override in commands:
        config = importlib.import_module(f"unet_jax.configs.{pathlib.Path(path).stem}")
        slice_name = parse_topology(topology).name
        assert f"plan        {config.get_config().name} on {slice_name};" in page
        assert ("class_names" in override) == (config is volume_3d)
