"""Finds and reads the images to segment."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from unet_jax.data.files.dicom import SUFFIXES as DICOM
from unet_jax.data.files.formats import SUFFIXES, file_suffix, output_name, stem_of
from unet_jax.data.files.read import list_images, read_image
from unet_jax.data.files.stored import StoredImage
from unet_jax.data.folder.alignment import misplaced
from unet_jax.data.folder.channels import (
    CHANNEL,
    by_channel,
    channel_problems,
    image_and_channel,
    incomplete_images,
    same_form,
)
from unet_jax.data.folder.listing import list_files, stem_in
from unet_jax.data.folder.options import ReadOptions
from unet_jax.data.folder.read import missing_of_case, read_case_image
from unet_jax.errors import InputError
from unet_jax.runtime.home import expanded


@dataclasses.dataclass(frozen=True)
class NewImage:
    """The files of one image, and its name without the number of a channel."""

    path: Path
    files: tuple[Path, ...]


def find_new_images(
    path: str | Path, options: ReadOptions, *, channels: int
) -> list[NewImage]:
    """Find the images of a path.

    Files ``scan_0000``, ``scan_0001``, ... are channels of one image if the network has
    that many channels and a single file has fewer. With the option ``channels``, files
    with these endings are the channels of one image.

    Args:
        path: an image file, or a folder; only files directly in the folder are taken,
            without the option ``channels``.

    Raises:
        InputError: there are no images, channels are missing, or two label maps would
            have the same name.
    """
    path = expanded(path)
    if options.channels and Path(path).exists():
        return _written_apart(path, _named_channels(Path(path), options.channels))
    files = list_images(path)
    if channels == 1:
        beside = list(files[0].parent.iterdir())
        return [NewImage(_without_number(file, beside), (file,)) for file in files]
    if not Path(path).is_dir() and CHANNEL.search(stem_of(files[0])):
        files = [file for file in list_images(files[0].parent) if _same(file, files[0])]
    groups: dict[str, list[Path]] = {}
    beside = list(files[0].parent.iterdir())
    for file in files:
        key = _plain(file).name
        groups.setdefault(key, []).append(file)
    found = []
    for key, group in groups.items():
        numbered = all(CHANNEL.search(stem_of(file)) for file in group)
        if numbered and len(group) == channels and not _complete(group[0], options):
            for problem in channel_problems(key, group):
                raise InputError(problem)
            found.append(NewImage(group[0].parent / key, tuple(group)))
        else:
            found += [NewImage(_without_number(one, beside), (one,)) for one in group]
    return _written_apart(path, found)


def _named_channels(path: Path, channels: Sequence[str]) -> list[NewImage]:
    """Find images of several files by the endings that the run was trained with.

    The files of a folder may lie in folders inside it, as a training set's do. A file
    stands for its image; one without an ending is an image by itself.
    """
    folder = path if path.is_dir() else path.parent
    stems = {file: stem_in(file, folder) for file in list_files(folder)}
    if not path.is_dir():
        found = image_and_channel(same_form(stems[path]), channels)
        if found is None:
            return [NewImage(path, (path,))]
    groups = by_channel(stems, channels)
    if not path.is_dir() and found is not None:
        groups = {found[0]: groups[found[0]]}
    for problem in incomplete_images(groups, channels):
        raise InputError(problem)
    if not groups:
        raise InputError(
            f"{path}: none of {len(stems)} images has an ending of "
            f"data.channels={tuple(channels)}; expected files with the endings that "
            "the run was trained with; rename them"
        )
    images = []
    for key, numbered in groups.items():
        files = tuple(file for _, file in numbered)
        name = (key.rpartition("/")[2] or stem_of(files[0])) + _ending(files[0])
        images.append(NewImage(files[0].parent / name, files))
    return images


def _written_apart(path: str | Path, images: list[NewImage]) -> list[NewImage]:
    """Refuse images whose label maps would have the same name."""
    written: dict[str, NewImage] = {}
    for image in images:
        name = output_name(image.path)
        if written.setdefault(name, image) is not image:
            raise InputError(
                f"{path}: {written[name].files[0].name} and {image.files[0].name} "
                f"would both be written as {name}; expected one of them; rename or "
                "move the other"
            )
    return images


def _without_number(file: Path, beside: Sequence[Path]) -> Path:
    """Return the name of an image that is one file, without the number of its channel.

    nnU-Net calls the only file of ``scan`` ``scan_0000``, also one of three colours.
    Frames of a film have such numbers too, but several of them.
    """
    plain = _plain(file)
    known = [
        one for one in beside if one.name.lower().endswith(SUFFIXES) or one.is_dir()
    ]
    if not stem_of(file).endswith("_0000") or any(
        one != file and (_same(one, file) or output_name(one) == output_name(plain))
        for one in known
    ):
        return file
    return plain


def _plain(file: Path) -> Path:
    """Return the name of a file without the number of its channel."""
    return file.with_name(CHANNEL.sub("", stem_of(file)) + _ending(file))


def _ending(file: Path) -> str:
    """Return the suffix of a file; that of DICOM for the folder of a series.

    No folder has the new name, so that the name alone has to tell the format.
    """
    return file_suffix(file) or DICOM[0]


def _same(file: Path, other: Path) -> bool:
    """Tell whether two files may be channels of one image."""
    names = [CHANNEL.sub("", stem_of(one)) for one in (file, other)]
    numbered = CHANNEL.search(stem_of(file)) is not None
    return numbered and names[0] == names[1] and file_suffix(file) == file_suffix(other)


def _complete(file: Path, options: ReadOptions) -> bool:
    """Tell whether a file itself has several channels, like a frame of a film."""
    try:
        return read_image(file, tiff_axes=options.tiff_axes or None).image.shape[-1] > 1
    except InputError:
        return False


def read_new_image(image: NewImage, options: ReadOptions) -> StoredImage:
    """Read an image with all its channels, as training reads its cases.

    Returns:
        The image on the stored grid of its first file, with the known spacing if the
        file has none.

    Raises:
        InputError: a file cannot be read, or the channels do not lie on one grid.
    """
    pixels, spacing, stored = read_case_image(image.files, options)
    first = stored[0]
    for other in stored[1:]:
        if problem := misplaced(first, other):
            raise InputError(problem)
    if first.spacing is None and spacing is not None:
        first = dataclasses.replace(first, spacing=_as_stored(spacing, first, options))
    if len(stored) > 1:
        restore = options.as_case_image(first)[2]
        missing = missing_of_case(stored, options, "channels")
        first = dataclasses.replace(
            first,
            image=restore(pixels),
            missing=None if missing is None else restore(missing),
        )
    return dataclasses.replace(first, path=image.path)


def _as_stored(
    spacing: Sequence[float], stored: StoredImage, options: ReadOptions
) -> tuple[float, ...]:
    """Reorder a spacing from the axes of a case to the axes of its file."""
    sizes = list(spacing)
    if stored.kind == "tiff" and len(sizes) == 3:
        sizes.insert(0, sizes.pop(options.slice_axis))
    return tuple(sizes)
