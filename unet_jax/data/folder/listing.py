"""Lists the images of a folder and its subfolders."""

import os
from collections.abc import Iterator
from pathlib import Path

from unet_jax.data.files.dicom import SUFFIXES as DICOM
from unet_jax.data.files.dicom import is_series
from unet_jax.data.files.formats import SUFFIXES, stem_of


def list_files(folder: Path) -> list[Path]:
    """List the image files of a folder and its subfolders, without hidden files.

    A subfolder with the slices of a DICOM series is one image, listed as that folder.
    Links to folders are followed. Broken links are listed, so that reading them reports
    the problem.
    """
    found: list[str] = []
    for place, files in walk_once(folder):
        if place != str(folder) and is_series(Path(place)):
            found.append(place)
            files = [name for name in files if not name.lower().endswith(DICOM)]
        found += [
            os.path.join(place, name)
            for name in files
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    found.sort(key=lambda name: name.split(os.sep))  # folder by folder
    return [
        Path(name)
        for name in found
        if os.path.isfile(name) or os.path.isdir(name) or not os.path.exists(name)
    ]


def walk_once(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder and the names of its files; follow links, but in no circle."""
    real = folder.resolve()
    above = {str(folder): frozenset(map(str, real.parents))}  # no link leads back there
    for place, inside, files in os.walk(folder, followlinks=True):
        seen = above.pop(place) | {os.path.realpath(place)}
        inside[:] = [
            name
            for name in inside
            if not name.startswith(".")
            and os.path.realpath(os.path.join(place, name)) not in seen
        ]
        above.update({os.path.join(place, name): seen for name in inside})
        yield place, files


def stem_in(file: Path, folder: Path) -> str:
    """Return the path of a file inside a folder with slashes, without the suffix."""
    return file.relative_to(folder).with_name(stem_of(file)).as_posix()
