"""Tests the memory that patch, network and batch are chosen for, and its source."""

import pytest

from unet_jax.configs import brain_slab, folder
from unet_jax.experiment import memory_class
from unet_jax.experiment.memory_class import MemoryChoice, choose_memory, class_of


@pytest.mark.parametrize(
    ("usable_gib", "gib"),
    [
        # By default JAX takes three quarters: cards of 8, 12, 16, 24, 40, 80, 141 GB.
        *((5.9, 8), (8.8, 8), (11.1, 16), (17.6, 16), (29.5, 32), (59.4, 80)),
        (104.9, 80),
        # TPUs give nearly all of their memory.
        *((7.5, 8), (15.75, 16), (30.8, 32), (95.7, 80)),
        # Smaller than all classes.
        *((5.2, 0.25), (1.0, 0.25)),
    ],
)
def test_the_memory_of_an_accelerator_is_rounded_down_to_a_class(usable_gib, gib):
    choice = class_of(kind="gpu", usable_bytes=usable_gib * 2**30)
    assert choice.gib == gib
    assert f"{usable_gib:.1f} GiB" in choice.source


def test_a_cpu_and_an_unknown_accelerator_get_the_small_default():
    cpu = class_of(kind="cpu", usable_bytes=200 * 2**30)
    assert cpu == MemoryChoice(0.25, "default of a CPU")
    unknown = class_of(kind="tpu", usable_bytes=0)
    assert unknown == MemoryChoice(0.25, "the memory of this tpu is unknown")


def test_the_smallest_device_of_all_processes_decides(monkeypatch):
    monkeypatch.setattr(memory_class.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(memory_class.jax, "local_devices", lambda: [60, 24])
    monkeypatch.setattr(memory_class, "device_limit", lambda device: device * 2**30)
    assert memory_class.class_of_devices().gib == 32
    others = 6 * 2**30
    monkeypatch.setattr(
        memory_class.agree, "gather_items", lambda mine: [*mine, others]
    )
    assert memory_class.class_of_devices().gib == 8


def _record(gib, source="class of this gpu"):
    return {"config": {"train": {"memory_gib": gib}}, "memory_source": source}


@pytest.mark.parametrize(
    ("given", "record", "choice"),
    [
        (None, None, MemoryChoice(0.25, "default of a CPU")),
        (2.0, None, MemoryChoice(2.0, "set by the config")),
        (None, _record(80.0), MemoryChoice(80.0, "class of this gpu", recorded=True)),
        # The config that a workdir remembers has the value.
        (80.0, _record(80.0), MemoryChoice(80.0, "class of this gpu", recorded=True)),
        # Version 0.1 recorded no source.
        (
            None,
            _record(0.25, None),
            MemoryChoice(0.25, "set by an earlier version", recorded=True),
        ),
        # The check of the record refuses this one.
        (2.0, _record(0.25), MemoryChoice(2.0, "set by the config")),
    ],
)
def test_the_workdir_comes_before_the_machine(given, record, choice):
    config = folder.get_config()
    config.train.memory_gib = given
    assert choose_memory(config, recorded=record) == choice


def test_sources_that_choose_nothing_from_the_data_take_only_what_is_recorded():
    config = brain_slab.get_config()
    assert choose_memory(config) is None
    assert choose_memory(config, recorded=_record(None, None)) is None
    assert choose_memory(config, recorded=_record(0.25, None)).gib == 0.25
