"""A trained network with its preprocessing: the probabilities of an image by planes."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from unet_jax.data.grids import Tile, with_prediction
from unet_jax.data.intensity import ScaledView
from unet_jax.data.one_hot import WithOneHot
from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import InputError
from unet_jax.inference.forward import WindowForward, class_probabilities
from unet_jax.inference.sliding_window import stream_bands, window_starts
from unet_jax.inference.tiles import ImageWindows
from unet_jax.losses.targets import Head
from unet_jax.method import Reference, Spacing


def stack_axis(preprocessing: Preprocessing, image_dims: int) -> int | None:
    """Return the axis along which a 2-D network takes the slices of a volume.

    None where the network takes an image of ``image_dims`` spatial axes as it is.

    Raises:
        InputError: the network cannot take an image with this number of axes.
    """
    if image_dims == preprocessing.network_dims:
        return None
    if image_dims == 3 and preprocessing.network_dims == 2:
        return preprocessing.slice_axis
    raise InputError(
        f"found an image with {image_dims} spatial axes, expected "
        f"{preprocessing.network_dims} as the network's; give it volumes, or train a "
        f"network with a train.patch_size of {image_dims} numbers"
    )


class Previous(Protocol):
    """A first network, whose labels are further channels of a second one."""

    classes: int
    """Number of classes without the background."""

    def __call__(
        self,
        image: np.ndarray,
        spacing: Spacing,
        *,
        name: str = "image",
        reference: Reference = None,
    ) -> np.ndarray:
        """Return the class index of every pixel of an image."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """A trained network with the preprocessing that it was trained with.

    Attributes:
        forward: compiled network, from `make_forward`.
        variables: parameters and statistics of the network.
        preprocessing: preprocessing that was fitted to the training split.
        num_classes: number of channels of the network's scores.
        window: pixels along each axis that the network gives scores for.
        margin: pixels along each axis that its input has more, on each side.
        multiple: number along each axis that divides the start of every window.
        overlap: fraction of a window that its neighbour covers too.
        window_batch: number of windows in one call of the network.
        groups: channels of each class, for a network whose channels are clusters; None
            where channel i is class i.
        voting: network that also gives the disagreement of mirrored images, as the last
            channel; None where it has one vote.
        logits_head: how probabilities are made of the scores of ``forward`` once they
            are logits on the image's own grid, with windows as nnU-Net places them;
            None where the scores are probabilities.
        previous: network whose labels this one takes as one-hot channels; or None.
    """

    forward: WindowForward
    variables: dict[str, Any]
    preprocessing: Preprocessing
    num_classes: int
    window: tuple[int, ...]
    margin: tuple[int, ...]
    multiple: tuple[int, ...]
    overlap: float
    window_batch: int
    groups: tuple[tuple[int, ...], ...] | None = None
    voting: WindowForward | None = None
    logits_head: Head | None = None
    previous: Previous | None = None

    @property
    def classes(self) -> int:
        """Number of classes that the probabilities have."""
        return self.num_classes if self.groups is None else len(self.groups)

    def band_axis(self, shape: Sequence[int]) -> int:
        """Choose the axis along which the scores of a band take the least memory.

        That is the axis along which the image is longest, measured in windows.
        """
        window = self.windows_of(len(shape))[0]
        return min(
            range(len(shape)), key=lambda axis: (window[axis] / shape[axis], axis)
        )

    def scores(
        self,
        image: np.ndarray,
        spacing: tuple[float, ...] | None,
        *,
        axis: int,
        name: str = "image",
        reference: Reference = None,
        disagreement: bool = False,
    ) -> "ImageScores":
        """Prepare an image, whose probabilities are then given plane by plane.

        Args:
            image: image ``(*spatial, channels)``.
            spacing: millimetres of a pixel along each axis, or None.
            axis: axis across the planes.
            name: name of the image in messages.
            reference: that of `Case`.
            disagreement: give one more channel where the network has several votes.
        """
        known: dict[str, Any] = {"name": name, "reference": reference}
        prepared: np.ndarray | ScaledView | WithOneHot
        prepared, inverse = self.preprocessing.view(image, spacing, **known)
        if self.previous is not None:
            labels = self.previous(image, spacing, **known)
            classes = self.previous.classes
            prepared = with_prediction(prepared, labels, inverse, classes=classes)
        voting = self.voting if disagreement and self.groups is None else None
        window, _, multiple, _ = self.windows_of(prepared.ndim - 1)
        whole = self.logits_head is None
        starts = tuple(
            window_starts(size, extent, self.overlap, multiple=step, whole=whole)
            for size, extent, step in zip(
                prepared.shape[:-1], window, multiple, strict=True
            )
        )
        channels = self.classes + (voting is not None)
        windows = ImageWindows(inverse, axis, starts, window, channels)
        return ImageScores(self, prepared, windows, voting or self.forward)

    def of_classes(self, scores: np.ndarray) -> np.ndarray:
        """Sum the probabilities of the channels of each class."""
        if self.groups is None:
            return scores
        return np.stack(
            [scores[..., list(group)].sum(-1) for group in self.groups], axis=-1
        )

    def windows_of(
        self, axes: int
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int | None]:
        """Return window, margin and multiple for an image, and the axis of slices."""
        stack = stack_axis(self.preprocessing, axes)
        if stack is None:
            return self.window, self.margin, self.multiple, None

        def with_slices(sizes: tuple[int, ...], single: int) -> tuple[int, ...]:
            return (*sizes[:stack], single, *sizes[stack:])

        return (
            with_slices(self.window, 1),
            with_slices(self.margin, 0),
            with_slices(self.multiple, 1),
            stack,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class ImageScores:
    """The probabilities of a prepared image, computed when its planes are read.

    Attributes:
        member: the network.
        image: image on the training grid.
        windows: windows that cover it.
        network: what the windows go through.
    """

    member: Member
    image: np.ndarray | ScaledView | WithOneHot
    windows: ImageWindows
    network: WindowForward

    def planes(self, tile: Tile | None = None) -> Iterator[np.ndarray]:
        """Yield the probabilities of each plane of the image, in order.

        Args:
            tile: part of each plane, see `choose_tiles`; None for the whole plane.

        Yields:
            Probabilities ``(*tile, classes)``, float32, on the image's own grid. A
            plane is overwritten when the next is asked for.
        """
        member, axis, inverse = self.member, self.windows.axis, self.windows.inverse
        tile = tile or inverse.whole(axis)
        window, margin, multiple, _ = member.windows_of(self.image.ndim - 1)

        def first(sizes: Sequence[int]) -> tuple[int, ...]:
            return (sizes[axis], *sizes[:axis], *sizes[axis + 1 :])

        neighbours = None
        squeezed = stack_axis(member.preprocessing, self.image.ndim - 1)
        if squeezed is not None and member.preprocessing.adjacent_slices:
            across = first(range(self.image.ndim - 1)).index(squeezed)
            neighbours = (across, member.preprocessing.adjacent_slices)
        bands = stream_bands(
            self._forward,
            self.image.transpose(first(range(self.image.ndim))),
            window=first(window),
            overlap=member.overlap,
            batch_size=member.window_batch,
            margin=first(margin),
            multiple=first(multiple),
            neighbours=neighbours,
            copy=False,  # each band is resampled before the next is asked for
            as_nnunet=member.logits_head is not None,
            region=inverse.needed(axis, tile),
        )
        return inverse.planes(
            bands,
            axis=axis,
            num_classes=self.windows.channels,
            finish=self._finish,
            tile=tile,
        )

    def _forward(self, windows: np.ndarray, wanted: int) -> np.ndarray:
        """Return the scores of windows whose first axis is the axis of the planes."""
        # The network takes the axes in the image's order, and no axis of one slice.
        member, axis = self.member, self.windows.axis
        squeezed = stack_axis(member.preprocessing, self.image.ndim - 1)
        windows = np.moveaxis(windows, 1, 1 + axis)
        if squeezed is not None:
            windows = windows.squeeze(1 + squeezed)
        scores = np.asarray(self.network(member.variables, windows, wanted))
        if squeezed is not None:
            scores = np.expand_dims(scores, 1 + squeezed)
        if member.logits_head is None:
            scores = member.of_classes(scores)
        return np.moveaxis(scores, 1 + axis, 1)

    def _finish(self, plane: np.ndarray) -> np.ndarray:
        """Make probabilities of a plane of logits."""
        head = self.member.logits_head
        if head is None:
            return plane
        return self.member.of_classes(np.asarray(class_probabilities(plane, head)))
