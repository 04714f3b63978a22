"""Segments an image: preprocessing, windows, network, and back to the image's grid.

Validation, the test split and the prediction of new files use the same chain.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import InputError, RunError
from unet_jax.inference.forward import WindowForward, class_probabilities
from unet_jax.inference.postprocess import Step, apply_steps
from unet_jax.inference.risk import Threshold
from unet_jax.inference.sliding_window import stream_bands
from unet_jax.inference.temperature import Calibration
from unet_jax.inference.uncertainty import fill_uncertainty
from unet_jax.losses.targets import Head
from unet_jax.method import Method, Reference


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


@dataclasses.dataclass(frozen=True, eq=False)
class Segmenter:
    """Segments images with a network, or with the mean probabilities of several.

    The mean is taken on the image's own grid, so that preprocessings may differ.

    Attributes:
        members: networks with the same classes, at least one.
        steps: postprocessing of the labels.
        strict: refuse probabilities that are NaN. Validation does not: the loss of the
            next step ends a run that diverged, and names the last good checkpoint.
        head: how the networks make probabilities.
        temperature: temperature of the mean probabilities; None leaves them as they
            are. It changes no label.
        threshold: class whose pixels are marked from a probability on, after the
            postprocessing, so that this cannot remove them; None for no class.
    """

    members: tuple[Member, ...]
    steps: tuple[Step, ...] = ()
    strict: bool = True
    head: Head = "softmax"
    temperature: float | None = None
    threshold: Threshold | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return self.members[0].classes

    @property
    def calibration(self) -> Calibration | None:
        """The function that calibrates probabilities, or None."""
        if self.temperature is None:
            return None
        return Calibration(self.temperature, self.head)

    @property
    def disagrees(self) -> bool:
        """Whether a prediction is the mean of several votes."""
        voting = (one.voting for one in self.members if one.groups is None)
        return len(self.members) > 1 or any(one is not None for one in voting)

    @property
    def method(self) -> Method:
        """The segmenter as the scorer takes it, which calibrates by itself."""
        calibration = self.calibration
        return Method(
            dataclasses.replace(self, temperature=None),
            gives_probabilities=True,
            wants_reference=True,
            calibrate=None if calibration is None else calibration.apply_to,
        )

    def named(self, groups: tuple[tuple[int, ...], ...] | None) -> "Segmenter":
        """Return a segmenter with groups of channels as classes; None for channels."""
        members = (dataclasses.replace(one, groups=groups) for one in self.members)
        return dataclasses.replace(self, members=tuple(members))

    def of_clusters(self) -> "Segmenter":
        """Return a segmenter whose labels are channels, for every pixel.

        It does not crop: the pixels that a crop leaves out would be channel 0, whatever
        that channel has learnt.
        """
        members = []
        for one in self.members:
            whole = dataclasses.replace(one.preprocessing, crop_nonzero=False)
            members.append(dataclasses.replace(one, groups=None, preprocessing=whole))
        return Segmenter(tuple(members), head=self.head)

    def __call__(
        self,
        image: np.ndarray,
        spacing: tuple[float, ...] | None,
        *,
        name: str = "image",
        reference: Reference = None,
        probabilities: np.ndarray | None = None,
        uncertainty: np.ndarray | None = None,
    ) -> np.ndarray:
        """Segment an image ``(*spatial, channels)``: the class index of every pixel.

        Args:
            image: image ``(*spatial, channels)``.
            spacing: millimetres of a pixel along each axis, or None.
            name: name of the image in messages.
            reference: see `Method`.
            probabilities: array ``(*spatial, classes)`` to fill, or None.
            uncertainty: array ``(*spatial, 1)`` to fill with the entropy, or
                ``(*spatial, 2)`` for the disagreement too (`fill_uncertainty`); None
                for none.
        """
        axis, planes = self.mean_planes(
            image, spacing, name=name, reference=reference, uncertainty=uncertainty
        )
        return self.labels(planes, image.shape[:-1], axis, spacing, probabilities)

    def mean_planes(
        self,
        image: np.ndarray,
        spacing: tuple[float, ...] | None,
        *,
        name: str = "image",
        reference: Reference = None,
        uncertainty: np.ndarray | None = None,
    ) -> tuple[int, Iterator[np.ndarray]]:
        """Return an axis, and the mean probabilities of each plane along it.

        They are not calibrated. The arguments are those of a call.
        """
        axis = self.members[0].band_axis(image.shape[:-1])
        streams = [
            member.probability_planes(
                image,
                spacing,
                axis=axis,
                name=name,
                reference=reference,
                disagreement=uncertainty is not None and uncertainty.shape[-1] > 1,
            )
            for member in self.members
        ]
        votes: Iterator[tuple[np.ndarray, ...]] = zip(*streams, strict=True)
        means: Iterator[np.ndarray]
        if uncertainty is None:
            means = map(_mean, votes)
        else:
            means = fill_uncertainty(
                votes,
                np.moveaxis(uncertainty, axis, 0),
                num_classes=self.num_classes,
                head=self.head,
                calibration=self.calibration,
            )
        return axis, _finite(means, name) if self.strict else means

    def labels(
        self,
        planes: Iterator[np.ndarray],
        shape: tuple[int, ...],
        axis: int,
        spacing: tuple[float, ...] | None = None,
        probabilities: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the likeliest class of each pixel, postprocessed, and the threshold's.

        Args:
            planes: probabilities from `mean_planes`, not calibrated.
            shape: spatial shape of the image.
            axis: axis across the planes.
            spacing: millimetres of a pixel along each axis, or None.
            probabilities: array ``(*spatial, classes)`` to fill with calibrated ones.
        """
        count = self.num_classes
        labels = np.zeros(shape, np.uint8 if count <= 256 else np.uint16)
        rows = np.moveaxis(labels, axis, 0)
        kept = None if probabilities is None else np.moveaxis(probabilities, axis, 0)
        calibration, threshold = self.calibration, self.threshold
        marked = None if threshold is None else np.zeros(shape, bool)
        for index, plane in enumerate(planes):
            # A temperature cannot change the label, but its rounding could.
            rows[index] = plane.argmax(axis=-1)
            if threshold is not None and marked is not None:
                np.moveaxis(marked, axis, 0)[index] = threshold.reached(plane)
            if kept is not None:
                kept[index] = plane if calibration is None else calibration(plane)
        labels = apply_steps(labels, self.steps, spacing=spacing)
        if threshold is not None:
            labels[marked] = threshold.index
        return labels


def _mean(planes: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return the mean of the networks; of one network its own plane."""
    return planes[0] if len(planes) == 1 else np.asarray(np.mean(planes, axis=0))


def _finite(planes: Iterator[np.ndarray], name: str) -> Iterator[np.ndarray]:
    """Refuse NaN and infinity: the likeliest class would be the first."""
    for plane in planes:
        if not np.isfinite(plane.sum()):
            raise RunError(
                f"{name}: the network gives probabilities that are NaN or infinite; "
                "expected 0 to 1; train again with a lower optimizer.learning_rate, or "
                "look for extreme values in the image"
            )
        yield plane


def make_predict_fn(
    forward: WindowForward,
    variables: dict[str, Any],
    preprocessing: Preprocessing,
    *,
    num_classes: int,
    patch_size: tuple[int, ...],
    overlap: float,
    window_batch: int,
    margin: tuple[int, ...] | None = None,
    multiple: tuple[int, ...] | None = None,
    steps: tuple[Step, ...] = (),
    head: Head = "softmax",
    voting: WindowForward | None = None,
    logits: bool = False,
) -> Segmenter:
    """Bind a trained network to the preprocessing that it was trained with.

    The arguments are those of `Member`, whose window is the training patch less the
    margin on each side. A network without padding has a margin, and its total stride as
    ``multiple``. With ``logits`` the network gives logits, see `Member.logits_head`.

    Returns:
        The segmenter: ``predict_fn(image, spacing) -> labels`` on the image's own grid.
    """
    margin = margin or (0,) * len(patch_size)
    window = tuple(n - 2 * lost for n, lost in zip(patch_size, margin, strict=True))
    member = Member(
        forward=forward,
        variables=variables,
        preprocessing=preprocessing,
        num_classes=num_classes,
        window=window,
        margin=margin,
        multiple=multiple or (1,) * len(patch_size),
        overlap=overlap,
        window_batch=window_batch,
        voting=voting,
        logits_head=head if logits else None,
    )
    return Segmenter((member,), steps, head=head)
