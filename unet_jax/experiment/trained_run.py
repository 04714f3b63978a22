"""A finished run that segments arrays and image files."""

import dataclasses
import os
from typing import Literal, overload

import numpy as np
from ml_collections import ConfigDict

from unet_jax.data.files.nifti import file_shape
from unet_jax.data.files.stored import StoredImage
from unet_jax.data.files.tiff_metadata import PRINTED
from unet_jax.data.folder.new_images import find_new_images, read_new_image
from unet_jax.data.folder.options import ReadOptions
from unet_jax.data.intensity import nonzero_statistics
from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import InputError
from unet_jax.experiment.distance import Describer
from unet_jax.inference.distance import Distance
from unet_jax.inference.segmenter import Segmenter
from unet_jax.method import Reference, Spacing


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A finished run, ready to segment images.

    Attributes:
        step: step of the checkpoint.
        predict_fn: network with its preprocessing and postprocessing.
        describer: measures how far an image is from those of training; or None.
    """

    config: ConfigDict
    preprocessing: Preprocessing
    step: int | None
    predict_fn: Segmenter
    describer: Describer | None = None

    @property
    def reading(self) -> ReadOptions:
        """Options with which files are read, as the cases of the run were."""
        data = self.config.data
        return ReadOptions(
            tiff_axes=data.tiff_axes,
            orientation=data.get("orientation", ""),  # not in records of 0.1
            slice_axis=self.preprocessing.slice_axis,
            channels=tuple(data.get("channels", ())),
            known_spacing=tuple(data.known_spacing),
        )

    @overload
    def predict(
        self,
        image: np.ndarray | str | os.PathLike[str],
        *,
        spacing: Spacing = None,
        probabilities: Literal[False] = False,
    ) -> np.ndarray: ...

    @overload
    def predict(
        self,
        image: np.ndarray | str | os.PathLike[str],
        *,
        spacing: Spacing = None,
        probabilities: Literal[True],
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def predict(
        self,
        image: np.ndarray | str | os.PathLike[str],
        *,
        spacing: Spacing = None,
        probabilities: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Segment an image, as ``--mode=predict`` does.

        Args:
            image: array ``(*spatial, channels)``, or ``(*spatial)`` for a network of
                one channel; a volume is in RAS order. Or the path of an image file:
                then the labels lie on the grid of the file.
            spacing: millimetres of a pixel along each spatial axis of an array; None
                where it is unknown. A file states its own.

        Returns:
            Labels ``(*spatial)``, the index of a class in each pixel. With
            ``probabilities`` also these, ``(*spatial, classes)`` float32.

        Raises:
            InputError: the file cannot be read, or the image does not fit the network.

        Example:
            >>> labels = run.predict(np.zeros((64, 64)))  # doctest: +SKIP
            >>> labels = run.predict("scan.nii.gz")  # doctest: +SKIP
        """
        stored, pixels = self._given(image, spacing)
        filled = None
        if probabilities:
            shape = (*pixels.shape[:-1], self.predict_fn.num_classes)
            filled = np.empty(shape, np.float32)
        if stored is not None:
            labels = self.segment(stored, filled).reshape(file_shape(stored))
            if filled is not None:
                filled = filled.reshape(*labels.shape, -1)
        else:
            millimetres = None if spacing is None else tuple(map(float, spacing))
            labels = self.predict_fn(pixels, millimetres, probabilities=filled)
        return labels if filled is None else (labels, filled)

    def segment(
        self,
        stored: StoredImage,
        probabilities: np.ndarray | None = None,
        *,
        uncertainty: np.ndarray | None = None,
    ) -> np.ndarray:
        """Segment an image on the grid of its file, in any storage order.

        Args:
            probabilities: array ``(*stored spatial, classes)`` to fill, or None.
            uncertainty: array ``(*stored spatial, 1 or 2)`` to fill with the entropy
                and the disagreement (`Segmenter`), NaN where the file declares pixels
                as missing; or None.

        Returns:
            Labels ``(*stored spatial)``; pixels that the file declares as missing have
            class 0.
        """
        name, reading = str(stored.path), self.reading
        self._check_spacing(stored)
        image, spacing, restore = reading.as_case_image(stored)
        missing = stored.missing

        def view(filled: np.ndarray | None) -> np.ndarray | None:
            # The axes of the image, as a view: what is set in it is in the array.
            if filled is None:
                return None
            return reading.as_case_image(dataclasses.replace(stored, image=filled))[0]

        found = self.predict_fn(
            image,
            spacing,
            name=name,
            reference=_reference(stored),
            probabilities=view(probabilities),
            uncertainty=view(uncertainty),
        )
        labels = restore(found)
        if missing is None:
            return labels
        if uncertainty is not None:
            uncertainty[missing] = np.nan
        return np.where(missing, labels.dtype.type(0), labels)

    def distance(
        self,
        image: np.ndarray | str | os.PathLike[str] | StoredImage,
        *,
        spacing: Spacing = None,
    ) -> Distance | None:
        """Measure how far an image is from those that the network learnt from.

        Args:
            image: image as `predict` takes it.
            spacing: spacing as `predict` takes it.

        Returns:
            Distances of the network's features and of the intensities, with 1 as the
            limit; ``is_beyond`` is True where the labels should not be trusted. None
            where the run fitted none (``eval.distance=False``, or version 0.1).

        Example:
            >>> run.distance("scan.nii.gz").is_beyond  # doctest: +SKIP
            False
        """
        if isinstance(image, StoredImage):
            stored: StoredImage | None = image
        else:
            stored, pixels = self._given(image, spacing)
        if self.describer is None:
            return None
        if stored is None:
            millimetres = None if spacing is None else tuple(map(float, spacing))
            return self.describer.distance(pixels, millimetres)
        case, found, _ = self.reading.as_case_image(stored)
        return self.describer.distance(case, found, reference=_reference(stored))

    def _given(
        self, image: np.ndarray | str | os.PathLike[str], spacing: Spacing
    ) -> tuple[StoredImage | None, np.ndarray]:
        """Return the file of an image, if it is one, and pixels with channels."""
        if not isinstance(image, str | os.PathLike):
            return None, self._with_channels(np.asarray(image), spacing)
        if spacing is not None:
            raise InputError(
                f"spacing: found {spacing} for the file {image}, expected None; a "
                "file states its own, and data.known_spacing that of other files"
            )
        stored = self._read(image)
        return stored, stored.image

    def _check_spacing(self, stored: StoredImage) -> None:
        """Refuse a printing resolution where the network needs a pixel size.

        Version 0.1 took one for the other, so that a network of that version may have
        been trained on pixels of a size that no file states.
        """
        wanted = self.preprocessing.spacing
        no_size = stored.spacing is None and stored.tags.get("spacing") == PRINTED
        if wanted is not None and no_size:
            raise InputError(
                f"{stored.path}: has a resolution for printing and no pixel size; "
                f"expected one, since the network was trained on pixels of {wanted} "
                "mm; write the size as ImageJ or OME metadata, or train again"
            )

    def _read(self, path: str | os.PathLike[str]) -> StoredImage:
        """Read one image from its file, or from one file for each channel."""
        channels = self.preprocessing.channels
        found = find_new_images(os.fspath(path), self.reading, channels=channels)
        if len(found) != 1:
            raise InputError(
                f"{path}: found {len(found)} images, expected one; give the path of a "
                "file, or use --mode=predict for a folder"
            )
        return read_new_image(found[0], self.reading)

    def _with_channels(self, image: np.ndarray, spacing: Spacing) -> np.ndarray:
        """Return an array ``(*spatial, channels)``."""
        channels, dims = self.preprocessing.channels, self.preprocessing.network_dims
        possible: tuple[int, ...] = (2, 3) if dims == 2 else (3,)
        if spacing is not None:
            possible = tuple(axes for axes in possible if axes == len(spacing))
        if image.ndim - 1 in possible and image.shape[-1] == channels:
            return image
        if image.ndim in possible and channels == 1:
            return image[..., None]
        raise InputError(
            f"image: found the shape {image.shape} with spacing {spacing}, expected "
            f"(*spatial, {channels}) with {' or '.join(map(str, possible)) or dims} "
            "spatial axes and one spacing for each"
        )


def _reference(stored: StoredImage) -> Reference:
    """Return the statistics of the pixels that a file does not declare as missing."""
    if stored.missing is None:
        return None
    seen = stored.image[~stored.missing][None]
    return tuple(
        nonzero_statistics(seen[..., index]) for index in range(seen.shape[-1])
    )
