"""Times crops of volumes that do not fit into memory, and measures the memory.

    python -m benchmarks.prepared FOLDER

Writes four scans as .nii.gz to FOLDER, opens them as a run does with
``data.cache_gib=0`` and draws crops in three ways: each scan is read and prepared again
for each crop; prepared scans lie in the workdir as mapped arrays; prepared scans are
kept in ``data.prepared_dir``. Prints a row for each way.
"""

import pathlib
import sys
import time

import nibabel
import numpy as np
from scipy import ndimage

from benchmarks.memory import peak_of
from unet_jax.configs import folder as folder_config
from unet_jax.data.patches import draw_patch
from unet_jax.data.prepared import PreparedCases
from unet_jax.data.preprocess import Preprocessing
from unet_jax.experiment.data import create_prepared_cases, open_dataset

SHAPE, PATCH, CROPS = (320, 320, 240), (96, 96, 96), 40


def main(folder: pathlib.Path) -> None:
    """Print the time of a crop and the memory for each way."""
    _write_scans(folder / "set")
    config = folder_config.get_config()
    config.data.path, config.data.cache_gib = str(folder / "set"), 0.0
    config.data.class_names, config.train.patch_size = ("none", "bright"), PATCH
    config.data.label_map = ((0, 0), (1, 1))
    source = open_dataset(config, folder / "workdir").source("train")
    preprocessing = Preprocessing(
        network_dims=3,
        slice_axis=2,
        spacing=(1.25, 1.25, 1.25),
        size=None,
        crop_nonzero=False,
        intensity="zscore",
        channels=1,
    )
    print(f"{'way':<22}{'first pass s':>13}{'ms a crop':>11}{'added MiB':>11}")
    for way in ("read again", "mapped", "kept", "kept, second run"):
        config.data.prepared_dir = str(folder / "kept") if "kept" in way else ""
        store = folder / "mapped" if way == "mapped" else None
        with peak_of() as memory:
            start = time.perf_counter()
            cases = create_prepared_cases(config, source, preprocessing, store)
            if way != "read again":
                for number in range(len(source)):
                    cases.case(number)
            first = time.perf_counter() - start
            times = _crops(cases, 4 if way == "read again" else CROPS)
        cases.close()
        print(
            f"{way:<22}{first:>13.1f}{1000 * np.median(times):>11.1f}"
            f"{memory['added_memory_mib']:>11.0f}",
            flush=True,
        )
    size = sum(path.stat().st_size for path in (folder / "kept").rglob("*"))
    print(f"kept cases: {size >> 20} MiB")


def _crops(cases: PreparedCases, count: int) -> list[float]:
    """Return the seconds of some crops, half of them centred on a class."""
    rng, times = np.random.default_rng(0), []
    for number in range(count):
        start = time.perf_counter()
        draw_patch(
            *cases[number % len(cases)],
            patch_size=PATCH,
            centred=bool(number % 2),
            rng=rng,
        )
        times.append(time.perf_counter() - start)
    return times


def _write_scans(folder: pathlib.Path) -> None:
    """Write smooth noise with some brighter places as images and masks."""
    rng = np.random.default_rng(0)
    for number in range(6):
        coarse = rng.normal(size=[size // 8 for size in SHAPE]).astype(np.float32)
        smooth = ndimage.zoom(coarse, 8, order=1)
        noise = rng.normal(0, 20, SHAPE).astype(np.float32)
        image = (500 + 100 * smooth + noise).astype(np.int16)
        label = (smooth > 1.5).astype(np.uint8)
        for name, array in (("images", image), ("masks", label)):
            path = folder / name / f"{number}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
