"""One process or many: what the flags, or the launcher's environment, say."""

import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

from unet_jax.errors import InputError


class Processes(NamedTuple):
    """How the processes of a run find each other; None is for jax to find out.

    Attributes:
        coordinator: ``host:port`` of the first process.
        number: how many there are.
        place: which one this is, from 0.
    """

    coordinator: str | None = None
    number: int | None = None
    place: int | None = None


def find_processes(
    *,
    coordinator: str | None,
    count: int | None,
    index: int | None,
    environment: Mapping[str, str],
) -> Processes | None:
    """Decide whether this process is one of several.

    Args:
        coordinator: the flag ``--coordinator``.
        count: the flag ``--num_processes``.
        index: the flag ``--process_id``.
        environment: variables of the process.

    Returns:
        What ``jax.distributed`` needs to know; None for a process on its own.

    Raises:
        InputError: some of the three flags are missing, or do not fit together; an
            address has no port, or a variable of jax is no number.
    """
    given = (coordinator, count, index)
    if any(value is not None for value in given):
        if coordinator is None or count is None or index is None:
            raise InputError(
                "--coordinator, --num_processes and --process_id belong together; "
                f"found {coordinator}, {count}, {index}; give all three, or none"
            )
        if not 0 <= index < count:
            raise InputError(
                f"--process_id: found {index}, expected 0 to {count - 1}, below "
                "--num_processes"
            )
        _check_address("--coordinator", coordinator)
        return Processes(*given) if count > 1 else None
    if environment.get("JAX_COORDINATOR_ADDRESS"):
        # Number and place as jax's variables or a launcher's say.
        _check_address(
            "JAX_COORDINATOR_ADDRESS", environment["JAX_COORDINATOR_ADDRESS"]
        )
        return Processes(environment["JAX_COORDINATOR_ADDRESS"], *_counted(environment))
    several = _number(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS") > 1
    if several and "SLURM_PROCID" in environment:
        return Processes()
    if _number(environment, "OMPI_COMM_WORLD_SIZE") > 1:
        return Processes()
    workers = environment.get("TPU_WORKER_HOSTNAMES", "")
    if "," in workers or environment.get("MEGASCALE_COORDINATOR_ADDRESS"):
        return Processes()
    return None


def start(
    processes: Processes, *, heartbeat_seconds: float, timeout_seconds: float = 300.0
) -> None:
    """Connect with the other processes; before anything else of jax.

    Args:
        processes: from `find_processes`.
        heartbeat_seconds: after which jax itself takes a silent process for dead and
            aborts; a watchdog of ours should have spoken before.
        timeout_seconds: to wait for the others to appear.

    Raises:
        InputError: they did not come together.
    """
    import jax

    try:
        jax.config.update("jax_enable_preemption_service", False)  # ours is its own
        jax.distributed.initialize(
            coordinator_address=processes.coordinator,
            num_processes=processes.number,
            process_id=processes.place,
            initialization_timeout=int(timeout_seconds),
            heartbeat_timeout_seconds=max(10, int(heartbeat_seconds)),
        )
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"the processes of this run do not find each other ({reason}); expected "
            f"{processes.number or 'those of the launcher'} at "
            f"{processes.coordinator or 'the address that it names'}; check that all "
            "were started and that the address and port can be reached"
        ) from None


def is_one_of_several() -> bool:
    """Whether `start` was called with success."""
    if "jax" not in sys.modules:
        return False
    import jax

    return bool(jax.distributed.is_initialized())


def _counted(environment: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Number of processes and place of this one, where jax's variables say so."""
    names = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    if not all(environment.get(name) for name in names):
        return None, None
    for name in names:
        if not environment[name].isdigit():
            raise InputError(
                f"{name}: found {environment[name]!r}, expected a number; set it, or "
                "unset JAX_COORDINATOR_ADDRESS for a process on its own"
            )
    count, index = (int(environment[name]) for name in names)
    return count, index


def _check_address(name: str, address: str) -> None:
    """Refuse an address without a port: jax itself fails with a traceback."""
    if not address.rpartition(":")[0] or not address.rpartition(":")[2].isdigit():
        raise InputError(
            f"{name}: found {address!r}, expected HOST:PORT such as node1:29400"
        )


def _number(environment: Mapping[str, str], *names: str) -> int:
    """The first of these variables that is a number; 0 without one."""
    for name in names:
        if environment.get(name, "").isdigit():
            return int(environment[name])
    return 0


def environment_processes(
    *, coordinator: str | None, count: int | None, index: int | None
) -> Processes | None:
    """Do as `find_processes` with the variables of this process.

    Args:
        coordinator: the flag ``--coordinator``.
        count: the flag ``--num_processes``.
        index: the flag ``--process_id``.
    """
    return find_processes(
        coordinator=coordinator, count=count, index=index, environment=os.environ
    )
