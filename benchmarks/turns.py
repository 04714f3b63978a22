"""Times our process and the peer's in turns, so that both see the same machine load."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import signal
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.same_work import check_facts, check_outputs

ROOT = pathlib.Path(__file__).parent.parent


class WorkerError(Exception):
    """A process could not answer a request."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One line of the table.

    Attributes:
        benchmark: name of the group, for ``--only``.
        name: name of the case, for ``--case``.
        unit: work that one time belongs to.
        ours: module of our side.
        peer: module of the peer's side.
        peer_name: name of the peer in the table.
        modes: modes of the peer; the fastest counts.
        options: keywords of ``prepare`` on both sides.
        peer_options: further keywords on the peer's side.
        tolerances: see ``check_outputs``.
        least_seconds: a repeat has as many calls as last this long; None for one call
            without a warm-up.
        repeats: largest number of repeats, for work that lasts minutes; None for no
            limit.
    """

    benchmark: str
    name: str
    unit: str
    ours: str
    peer: str
    peer_name: str
    modes: tuple[str, ...]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    peer_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tolerances: Mapping[str, float] = dataclasses.field(default_factory=dict)
    least_seconds: float | None = 0.5
    repeats: int | None = None


@dataclasses.dataclass
class Outcome:
    """Results of a case.

    Attributes:
        ours: repeats of each measure, ``seconds`` first.
        peers: repeats of each measure for each mode of the peer.
        failed: modes that did not work, with the reason.
        differences: differences of each mode, see ``check_outputs``.
        facts: facts that are equal on both sides.
        versions: versions of the packages of each side.
    """

    ours: dict[str, list[float]]
    peers: dict[str, dict[str, list[float]]]
    failed: dict[str, str]
    differences: dict[str, dict[str, dict[str, float]]]
    facts: dict[str, Any]
    versions: dict[str, dict[str, str]]

    @property
    def best_mode(self) -> str:
        """The mode of the peer with the smallest median time."""
        return min(
            self.peers, key=lambda mode: statistics.median(self.peers[mode]["seconds"])
        )


class Worker:
    """A process of one side."""

    def __init__(self, python: str, log: pathlib.Path) -> None:
        """Start the process.

        Args:
            python: interpreter with the packages of the side.
            log: file for the output of the process.
        """
        self._log = log
        with log.open("w") as stderr:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=ROOT,
                start_new_session=True,  # its data loaders must end with it
            )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
            WorkerError: the request failed, or the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            last = self._log.read_text(errors="replace").strip().splitlines()[-5:]
            raise WorkerError(
                f"{request['do']}: the process ended with code {self._process.wait()}; "
                f"expected an answer; its last lines: {' | '.join(last)}"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{request['do']}: {answer['error']}")
        return answer

    def close(self, *, patience: float = 20.0) -> None:
        """Let the process end, as it does without further requests.

        Args:
            patience: seconds after which the process and its children are killed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()


class Side(NamedTuple):
    """One side that is ready.

    Attributes:
        worker: process of the side.
        facts: facts that must be equal on both sides.
        versions: versions of its packages.
        outputs: file with the results of its work.
    """

    worker: Worker
    facts: dict[str, Any]
    versions: dict[str, str]
    outputs: pathlib.Path


def take_turns(
    case: Case,
    *,
    our_python: str,
    peer_python: str,
    repeats: int,
    cores: Sequence[int],
    folder: pathlib.Path,
    say: Callable[[str], None],
) -> Outcome:
    """Prepare both sides, check that they do the same, and time them in turns.

    Args:
        case: the case.
        our_python: interpreter with jax.
        peer_python: interpreter with torch.
        repeats: number of rounds; in each round every side has one turn.
        cores: cores that every process may use; () for all.
        folder: empty folder for files that the sides exchange.
        say: function that prints progress.

    Returns:
        The results of the case.

    Raises:
        OtherWorkError: the sides do different work.
        WorkerError: our side failed, or every mode of the peer failed.
    """
    with contextlib.ExitStack() as stack:
        begin = functools.partial(_begun, case, stack, cores=cores, folder=folder)
        ours = begin("ours", python=our_python)
        begin_peer = functools.partial(begin, python=peer_python, **case.peer_options)
        peers, failed = _working(case.modes, begin_peer, say)
        differences = {}
        for mode, peer in peers.items():
            check_facts(ours.facts, peer.facts)
            differences[mode] = check_outputs(
                ours.outputs, peer.outputs, case.tolerances
            )
        workers = {
            side: begun.worker for side, begun in {"ours": ours, **peers}.items()
        }
        measured = _rounds(case, workers, min(repeats, case.repeats or repeats), say)
    return Outcome(
        ours=measured.pop("ours"),
        peers=measured,
        failed=failed,
        differences=differences,
        facts=ours.facts,
        versions={
            "ours": ours.versions,
            "peer": next(iter(peers.values())).versions,
        },
    )


def _begun(
    case: Case,
    stack: contextlib.ExitStack,
    side: str,
    *,
    python: str,
    cores: Sequence[int],
    folder: pathlib.Path,
    **options: Any,
) -> Side:
    """Start the process of a side, which ends with the stack, and let it do the work.

    ``options`` are further keywords of ``prepare`` on this side.
    """
    worker = Worker(python, folder / f"{side}.log")
    stack.callback(worker.close)
    answer = worker.ask(
        do="prepare",
        module=case.ours if side == "ours" else case.peer,
        options={**case.options, **options},
        folder=str(folder),
        cores=list(cores),
    )
    outputs = folder / f"{side}.npz"
    worker.ask(do="check", file=str(outputs))
    return Side(worker, answer["facts"], answer["versions"], outputs)


def _working(
    modes: Sequence[str], begin: Callable[..., Side], say: Callable[[str], None]
) -> tuple[dict[str, Side], dict[str, str]]:
    """Start every mode of the peer; return working modes and errors of the others."""
    peers: dict[str, Side] = {}
    failed: dict[str, str] = {}
    for mode in modes:
        try:
            peers[mode] = begin(mode, mode=mode)
        except WorkerError as error:
            failed[mode] = str(error)
            say(f"  {mode} does not work: {_last_line(str(error))}")
    if not peers:
        reasons = (f"{mode}: {_last_line(text)}" for mode, text in failed.items())
        raise WorkerError(f"no mode of the peer works: {'; '.join(reasons)}")
    return peers, failed


def _last_line(text: str) -> str:
    """Last line of a traceback."""
    return text.strip().splitlines()[-1]


def _rounds(
    case: Case, workers: dict[str, Worker], repeats: int, say: Callable[[str], None]
) -> dict[str, dict[str, list[float]]]:
    """Time every worker once in a round; every second round is in reverse order."""
    calls = {side: 1 for side in workers}
    if case.least_seconds is not None:
        for side, worker in workers.items():
            answer = worker.ask(do="warm", least_seconds=case.least_seconds)
            calls[side] = answer["calls"]
    measured: dict[str, dict[str, list[float]]] = {side: {} for side in workers}
    for number in range(repeats):
        sides = list(workers) if number % 2 == 0 else list(workers)[::-1]
        for side in sides:
            for name, value in workers[side].ask(do="time", calls=calls[side]).items():
                measured[side].setdefault(name, []).append(value)
        times = (f"{side} {measured[side]['seconds'][-1]:.4g} s" for side in workers)
        say(f"  {number + 1}/{repeats}: " + ", ".join(times))
    return measured
