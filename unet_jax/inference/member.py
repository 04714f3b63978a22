"""A trained network with its preprocessing: the probabilities of an image by planes."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import InputError
from unet_jax.inference.forward import WindowForward, class_probabilities
from unet_jax.inference.sliding_window import stream_bands
from unet_jax.losses.targets import Head
from unet_jax.method import Reference


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

    @property
    def classes(self) -> int:
        """Number of classes that the probabilities have."""
        return self.num_classes if self.groups is None else len(self.groups)

    def band_axis(self, shape: Sequence[int]) -> int:
        """Choose the axis along which the scores of a band take the least memory.

        That is the axis along which the image is longest, measured in windows.
        """
        window = self._windows(len(shape))[0]
        return min(
            range(len(shape)), key=lambda axis: (window[axis] / shape[axis], axis)
        )

    def probability_planes(
        self,
        image: np.ndarray,
        spacing: tuple[float, ...] | None,
        *,
        axis: int,
        name: str = "image",
        reference: Reference = None,
        disagreement: bool = False,
    ) -> Iterator[np.ndarray]:
        """Yield the probabilities of each plane of an image along an axis, in order.

        The spacing is millimetres of a pixel along each axis, or None; the reference
        is that of `Case`.

        Yields:
            Probabilities ``(*rest, classes)``, float32, on the image's own grid. A
            plane is overwritten when the next is asked for. With ``disagreement`` one
            more channel follows where the network has several votes.
        """
        prepared, inverse = self.preprocessing.view(
            image, spacing, name=name, reference=reference
        )
        window, margin, multiple, squeezed = self._windows(prepared.ndim - 1)
        voting = self.voting if disagreement and self.groups is None else None
        network = voting or self.forward

        def first(sizes: Sequence[int]) -> tuple[int, ...]:
            return (sizes[axis], *sizes[:axis], *sizes[axis + 1 :])

        neighbours = None
        if squeezed is not None and self.preprocessing.adjacent_slices:
            across = first(range(prepared.ndim - 1)).index(squeezed)
            neighbours = (across, self.preprocessing.adjacent_slices)

        def forward(windows: np.ndarray, wanted: int) -> np.ndarray:
            # The network takes the axes in the image's order, and no axis of one slice.
            windows = np.moveaxis(windows, 1, 1 + axis)
            if squeezed is not None:
                windows = windows.squeeze(1 + squeezed)
            scores = np.asarray(network(self.variables, windows, wanted))
            if squeezed is not None:
                scores = np.expand_dims(scores, 1 + squeezed)
            if self.logits_head is None:
                scores = self._of_classes(scores)
            return np.moveaxis(scores, 1 + axis, 1)

        bands = stream_bands(
            forward,
            prepared.transpose(first(range(prepared.ndim))),
            window=first(window),
            overlap=self.overlap,
            batch_size=self.window_batch,
            margin=first(margin),
            multiple=first(multiple),
            neighbours=neighbours,
            copy=False,  # each band is resampled before the next is asked for
            as_nnunet=self.logits_head is not None,
        )
        channels = self.classes + (voting is not None)
        head = self.logits_head

        def finish(plane: np.ndarray) -> np.ndarray:
            if head is None:
                return plane
            return self._of_classes(np.asarray(class_probabilities(plane, head)))

        return inverse.planes(bands, axis=axis, num_classes=channels, finish=finish)

    def _of_classes(self, scores: np.ndarray) -> np.ndarray:
        """Sum the probabilities of the channels of each class."""
        if self.groups is None:
            return scores
        return np.stack(
            [scores[..., list(group)].sum(-1) for group in self.groups], axis=-1
        )

    def _windows(
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
