"""Finds and joins the processes of a run, by flags or by the launcher's variables."""

import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

from unet_jax.errors import InputError


class Processes(NamedTuple):
    """Addresses of the processes of a run; jax finds out what is None.

    Attributes:
        coordinator: ``host:port`` of the first process.
        number: number of processes.
        place: index of this process, from 0.
    """

    coordinator: str | None = None
    number: int | None = None
    place: int | None = None


def find_processes(
    *,
    coordinator: str | None,
    count: int | None,
    index: int | None,
    environment: Mapping[str, str] = os.environ,
) -> Processes | None:
    """Decide by flags and environment whether this process is one of several.

    ``coordinator``, ``count`` and ``index`` are the flags ``--coordinator``,
    ``--num_processes`` and ``--process_id``.

    Returns:
        Arguments of ``jax.distributed``; None for a single process.

    Raises:
        InputError: some of the three flags are missing, or do not fit together; an
            address has no port, or a variable of jax is not a number.
    """
    given = (coordinator, count, index)
    if any(value is not None for value in given):
        if coordinator is None or count is None or index is None:
            raise InputError(
                "--coordinator, --num_processes and --process_id: found "
                f"{coordinator}, {count}, {index}; expected all three, or none"
            )
        if not 0 <= index < count:
            raise InputError(
                f"--process_id: found {index}, expected 0 to {count - 1}, below "
                "--num_processes"
            )
        _check_address("--coordinator", coordinator)
        return Processes(*given) if count > 1 else None
    if environment.get("JAX_COORDINATOR_ADDRESS"):
        # Number and index are those of jax's variables, or of a launcher's.
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
    """Connect to the other processes, before any other use of jax.

    ``heartbeat_seconds`` is the silence after which jax takes a process for dead and
    aborts; it is longer than the time of our watchdog.

    Raises:
        InputError: the processes did not find each other in time.
    """
    import jax

    try:
        jax.config.update("jax_enable_preemption_service", False)  # see StopSignals
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
    """Return whether `start` has succeeded."""
    if "jax" not in sys.modules:
        return False
    import jax

    return bool(jax.distributed.is_initialized())


def _counted(environment: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Read the number of processes and the index of this one from jax's variables."""
    names = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    if not all(environment.get(name) for name in names):
        return None, None
    for name in names:
        if not environment[name].isdigit():
            raise InputError(
                f"{name}: found {environment[name]!r}, expected a number; set it, or "
                "unset JAX_COORDINATOR_ADDRESS for a single process"
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
    """Return the first of these variables that is a number; 0 without one."""
    for name in names:
        if environment.get(name, "").isdigit():
            return int(environment[name])
    return 0
