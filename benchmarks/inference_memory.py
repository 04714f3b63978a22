"""Measures the memory of predicting large volumes with 100 classes.

    python -m benchmarks.inference_memory --peer_python=PYTHON  # or: ... cube

Each side predicts a volume in a process of its own, from its array to its labels, with
a tiny network. MONAI and nnU-Net keep the scores of a whole volume, so their volume has
half the size along each axis, and the memory that it adds is also shown times eight.
Prints a row for each case and side.
"""

import json
import subprocess
import sys
from typing import Any

CLASSES = 100

CASES: dict[str, dict[str, Any]] = {
    # A body scan; the network sees voxels of 1.5 mm, and the scores are resampled back.
    "ct_3d": {
        "volume": [512, 512, 300],
        "spacing": [0.8, 0.8, 1.5],
        "target": [1.5, 1.5, 1.5],
        "patch": [64, 64, 64],
        "overlap": 0.25,
    },
    # The same scan slice by slice.
    "ct_2d": {
        "volume": [512, 512, 300],
        "spacing": [0.8, 0.8, 1.5],
        "target": [1.2, 1.2, 1.5],
        "patch": [192, 192],
        "overlap": 0.25,
    },
    # The volume of MONAI's pull request 9071, with a smaller window.
    "cube": {
        "volume": [384, 384, 384],
        "spacing": [1.0, 1.0, 1.0],
        "target": None,
        "patch": [64, 64, 64],
        "overlap": 0.25,
    },
}


def main(arguments: list[str]) -> None:
    """Print memory and time of each case."""
    peer, names = sys.executable, []
    for argument in arguments:
        if argument.startswith("--peer_python="):
            peer = argument.partition("=")[2]
        elif argument in CASES:
            names.append(argument)
        else:
            sys.exit(f"found {argument!r}, expected --peer_python=PYTHON or a case")
    print(f"{'case':<8}{'side':<9}{'volume':<15}{'peak MiB':>10}{'s':>6}  added MiB")
    for name in names or CASES:
        for package in ("ours", "MONAI", "nnU-Net"):
            case = {**CASES[name], "package": package}
            side, python = "ours", sys.executable
            if package != "ours":
                # nnU-Net resamples in its export, which needs plans.
                if len(case["patch"]) == 2 or (package == "nnU-Net" and case["target"]):
                    continue
                side, python = "peers", peer
                case["volume"] = [size // 2 for size in case["volume"]]
            found = _measured(python, side, case)
            added = found["added_memory_mib"]
            scaled = "" if side == "ours" else f" (times 8: {8 * added:.0f})"
            print(
                f"{name:<8}{package:<9}{'x'.join(map(str, case['volume'])):<15}"
                f"{found['peak_memory_mib']:>10.0f}{found['seconds']:>6.0f}"
                f"  {added:.0f}{scaled}",
                flush=True,
            )


def _measured(python: str, side: str, case: dict[str, Any]) -> dict[str, float]:
    """Predict a volume in a new process; return its memory and time."""
    made = subprocess.run(
        [python, "-m", f"benchmarks.{side}.inference_memory", json.dumps(case)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    found: dict[str, float] = json.loads(made.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
