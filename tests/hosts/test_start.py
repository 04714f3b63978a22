"""A process finds out that it is one of several, or refuses with one line."""

import pytest

from unet_jax.errors import InputError
from unet_jax.hosts.start import Processes, find_processes

FLAGS = {"coordinator": "node1:29400", "count": 2, "index": 1}
NONE = {"coordinator": None, "count": None, "index": None}


@pytest.mark.parametrize(
    ("flags", "environment", "expected"),
    [
        (NONE, {}, None),
        (FLAGS, {}, Processes("node1:29400", 2, 1)),
        ({**FLAGS, "count": 1, "index": 0}, {}, None),
        (NONE, {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, Processes()),
        (NONE, {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        (NONE, {"OMPI_COMM_WORLD_SIZE": "2"}, Processes()),
        (NONE, {"TPU_WORKER_HOSTNAMES": "a,b"}, Processes()),
        (NONE, {"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        (NONE, {"JAX_COORDINATOR_ADDRESS": "a:1"}, Processes("a:1")),
        (
            NONE,
            {
                "JAX_COORDINATOR_ADDRESS": "[::1]:1",
                "JAX_NUM_PROCESSES": "4",
                "JAX_PROCESS_ID": "3",
            },
            Processes("[::1]:1", 4, 3),
        ),
    ],
)
def test_flags_come_before_what_a_launcher_says(flags, environment, expected):
    assert find_processes(**flags, environment=environment) == expected


@pytest.mark.parametrize(
    ("flags", "environment", "message"),
    [
        ({**FLAGS, "index": None}, {}, "--process_id: found node1"),
        ({**FLAGS, "index": 2}, {}, "--process_id: found 2, expected 0 to 1"),
        ({**FLAGS, "coordinator": "node1"}, {}, "--coordinator: found 'node1', exp"),
        ({**FLAGS, "coordinator": ":1"}, {}, "--coordinator: found ':1', expected H"),
        (
            NONE,
            {"JAX_COORDINATOR_ADDRESS": "a:b"},
            "JAX_COORDINATOR_ADDRESS: found 'a:b', expected HOST:PORT",
        ),
        (
            NONE,
            {
                "JAX_COORDINATOR_ADDRESS": "a:1",
                "JAX_NUM_PROCESSES": "two",
                "JAX_PROCESS_ID": "0",
            },
            "JAX_NUM_PROCESSES: found 'two', expected a number",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(flags, environment, message):
    with pytest.raises(InputError) as caught:
        find_processes(**flags, environment=environment)
    assert message in str(caught.value)
