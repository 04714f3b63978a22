"""Runs the benchmarks, ours and the peer's in turns.

    python -m benchmarks.run --peer_python=PYTHON_WITH_TORCH
    python -m benchmarks.run --only=train_2d,augmentation --repeats=5
    python -m benchmarks.run --only=inference_2d --case=512_batch_1

needs the extra ``bench``, in this Python or in that of ``--peer_python``. Prints a
table and adds every result to benchmarks/results.json as soon as it is measured. The
ratio is the time of the peer divided by ours: above 1, ours is faster.
docs/performance.md says what is compared.
"""

import argparse
import datetime
import os
import pathlib
import platform
import shlex
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks.catalogue import CASES
from benchmarks.report import add_result, failure_of, read_results, result_of, table
from benchmarks.same_work import OtherWorkError
from benchmarks.turns import ROOT, Case, WorkerError, take_turns


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen cases.

    Args:
        arguments: arguments of the command line; None for those of this process.

    Returns:
        The exit code: 1 if a case failed.
    """
    options = _parse(arguments)
    cores = sorted(os.sched_getaffinity(0))[: options.cores]
    results = []
    for case in options.cases:
        print(f"{case.benchmark} {case.name}: against {case.peer_name}", flush=True)
        result = _run(case, options, cores)
        results.append(result)
        add_result(options.output, result)
        if "error" in result:
            print(f"  failed: {result['error']}", flush=True)
    print(f"\n{table(results)}\n\nkept in {options.output}")
    return 1 if any("error" in result for result in results) else 0


def _run(case: Case, options: argparse.Namespace, cores: list[int]) -> dict[str, Any]:
    """Run one case; an error becomes its result."""
    about = _about(len(cores))
    with tempfile.TemporaryDirectory(prefix="benchmark_") as folder:
        try:
            outcome = take_turns(
                case,
                our_python=options.our_python,
                peer_python=options.peer_python,
                repeats=options.repeats,
                cores=cores,
                folder=pathlib.Path(folder),
                say=lambda line: print(line, flush=True),
            )
        except (OtherWorkError, WorkerError) as error:
            return failure_of(case, str(error), about)
    return result_of(case, outcome, about)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line, and choose the cases."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description=__doc__.splitlines()[0] if __doc__ else None,
    )
    names = list(dict.fromkeys(case.benchmark for case in CASES))
    parser.add_argument("--only", help=f"benchmarks, A,B; of {', '.join(names)}")
    parser.add_argument("--case", help="cases of them, A,B; a wrong name lists them")
    parser.add_argument("--repeats", type=_positive, default=7, help="rounds a case")
    parser.add_argument(
        "--cores", type=_positive, help="cores that both sides use; default all"
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=ROOT / "benchmarks" / "results.json",
        help="file that results are added to",
    )
    parser.add_argument("--our_python", default=sys.executable, help="has jax")
    parser.add_argument("--peer_python", default=sys.executable, help="has torch")
    options = parser.parse_args(arguments)
    try:
        options.cases = choose(CASES, only=options.only, case=options.case)
        read_results(options.output)  # before hours of work
    except ValueError as error:
        parser.error(str(error))
    return options


def _positive(text: str) -> int:
    """Read a number above 0."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected 1 or more")
    return int(text)


def choose(cases: Sequence[Case], *, only: str | None, case: str | None) -> list[Case]:
    """Choose cases by name.

    Args:
        cases: all of them.
        only: benchmarks, ``"A,B"``; None for all.
        case: names of cases of those benchmarks, separated by commas.

    Returns:
        Those of both, in their order.

    Raises:
        ValueError: a name is not known.
    """
    for kind, wanted in (("benchmark", only), ("name", case)):
        if wanted is None:
            continue
        known = list(dict.fromkeys(getattr(one, kind) for one in cases))
        for name in wanted.split(","):
            if name not in known:
                option = "--only" if kind == "benchmark" else "--case"
                raise ValueError(
                    f"{option}: found {name!r}, expected one of {', '.join(known)}"
                )
        cases = [one for one in cases if getattr(one, kind) in wanted.split(",")]
    return list(cases)


def _about(cores: int) -> dict[str, Any]:
    """Describe where and when a result was made."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": f"python -m benchmarks.run {shlex.join(sys.argv[1:])}".strip(),
        "cpu": _cpu(),
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu() -> str:
    """Name of the processor, from Linux."""
    path = pathlib.Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
