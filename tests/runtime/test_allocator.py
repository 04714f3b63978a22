"""Memory that is freed is used again, without a problem for every page of it."""

import ctypes
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"),
    reason="glibc alone has mallopt",
)

SCRIPT = """
import resource, sys
from unet_jax.runtime.allocator import keep_freed_memory
told = keep_freed_memory()
import numpy as np
def problems():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        np.ones(2**24)  # 128 MiB: more than glibc ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
problems()
print(told, problems())
"""


def _run(**environment):
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))
    }
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    told, problems = answer.stdout.split()
    return told == "True", int(problems)


def test_a_large_block_is_mapped_once():
    told, problems = _run()
    assert told
    assert problems < 1000


@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "MALLOC_ARENA_MAX"])
def test_what_the_user_set_stays(name):
    value = {"MALLOC_ARENA_MAX": "4", "GLIBC_TUNABLES": "glibc.malloc.arena_max=4"}
    told, problems = _run(**{name: value[name]})
    assert not told
    assert problems > 1000
