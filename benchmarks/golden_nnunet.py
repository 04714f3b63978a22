"""Files that torch and nnU-Net wrote, for tests that have neither of them.

    python -m benchmarks.golden_nnunet

needs torch 2.13, dynamic-network-architectures 0.4.4 and nnunetv2 2.8.1. It writes the
files that ``FILES`` names.
"""

import collections
import pathlib
from typing import Any

import numpy as np

TESTS = pathlib.Path(__file__).parents[1] / "tests" / "models"


def main() -> None:
    """Write every file."""
    import torch

    torch.save(_values(), TESTS / "pytorch" / "values.pth")


def _values() -> dict[str, Any]:
    """One value of each kind that a checkpoint may hold."""
    import torch

    tensor = torch.arange(24.0).reshape(2, 3, 4)
    dtypes = (
        *("float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "uint16"),
        *("int8", "uint8", "int16", "int32", "int64"),
    )
    torch.manual_seed(0)
    return {
        **{name: tensor.to(getattr(torch, name)) for name in dtypes},
        "complex64": torch.complex(tensor, tensor),
        "bool": tensor > 3,
        "steps": tensor[:, 1:, ::2],
        "permuted": tensor.permute(2, 0, 1),
        "expanded": torch.ones(1, 3).expand(5, 3),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(5.0),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "array": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big_endian": np.arange(3, dtype=">i4"),
        "float": np.float64(3.5),
        "list": [1, (2, 3, "x"), None, True, 2**70, -5, b"abc\xff"],
        "ordered": collections.OrderedDict(x=1),
        "set": {1, 2},
        "size": tensor.shape,
        "device": torch.device("cpu"),
        "default": collections.defaultdict(list, {"q": [1]}),
        "state_dict": torch.nn.Linear(1, 2).state_dict(),
    }


if __name__ == "__main__":
    main()
