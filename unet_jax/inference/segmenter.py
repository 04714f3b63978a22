"""Segments an image: preprocessing, windows, network, and back to the image's grid.

Validation, the test split and the prediction of new files use the same chain.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from unet_jax.data.grids import Tile, slices
from unet_jax.data.preprocess import Preprocessing
from unet_jax.data.regions import Regions
from unet_jax.errors import RunError
from unet_jax.inference.forward import WindowForward
from unet_jax.inference.member import ImageScores, Member, Previous
from unet_jax.inference.postprocess import Step, apply_steps
from unet_jax.inference.risk import Threshold
from unet_jax.inference.temperature import Calibration
from unet_jax.inference.tiles import choose_tiles
from unet_jax.inference.uncertainty import fill_uncertainty
from unet_jax.losses.targets import Head
from unet_jax.method import Method, Reference

Watch = Callable[[tuple[slice | int, ...], np.ndarray], None]
"""Function of the index of a part of a plane in an image, and its probabilities."""


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
        regions: regions that the channels are; None where they are classes. Regions
            have no threshold.
    """

    members: tuple[Member, ...]
    steps: tuple[Step, ...] = ()
    strict: bool = True
    head: Head = "softmax"
    temperature: float | None = None
    threshold: Threshold | None = None
    regions: Regions | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return self.members[0].classes

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Classes that are scored, one by one; or those of each region."""
        if self.regions is not None:
            return tuple(self.regions.groups.values())
        return tuple((index,) for index in range(1, self.num_classes))

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
        watch: Watch | None = None,
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
            watch: function that is given the index of a part of a plane, and its mean
                probabilities ``(*part, classes)``, not calibrated; None for none.
        """
        axis, scores = self._scores(image, spacing, name, reference, uncertainty)
        drawn = _Drawing(self, image.shape[:-1], axis, probabilities, watch)
        for tile in choose_tiles([one.windows for one in scores]):
            drawn.add(self._means(scores, name, uncertainty, tile), tile)
        return drawn.finished(spacing)

    def band_axis(self, shape: tuple[int, ...]) -> int:
        """Return the axis of an image of a shape across which planes are segmented."""
        return self.members[0].band_axis(shape)

    def _scores(
        self,
        image: np.ndarray,
        spacing: tuple[float, ...] | None,
        name: str,
        reference: Reference,
        uncertainty: np.ndarray | None,
    ) -> tuple[int, list[ImageScores]]:
        """Return an axis, and the scores of each network along it."""
        axis = self.band_axis(image.shape[:-1])
        disagreement = uncertainty is not None and uncertainty.shape[-1] > 1
        return axis, [
            member.scores(
                image,
                spacing,
                axis=axis,
                name=name,
                reference=reference,
                disagreement=disagreement,
            )
            for member in self.members
        ]

    def _means(
        self,
        scores: Sequence[ImageScores],
        name: str,
        uncertainty: np.ndarray | None,
        tile: Tile,
    ) -> Iterator[np.ndarray]:
        """Return the mean probabilities of a tile of each plane."""
        votes: Iterator[tuple[np.ndarray, ...]]
        votes = zip(*(one.planes(tile) for one in scores), strict=True)
        means: Iterator[np.ndarray]
        if uncertainty is None:
            means = map(_mean, votes)
        else:
            rows = np.moveaxis(uncertainty, scores[0].windows.axis, 0)
            means = fill_uncertainty(
                votes,
                rows[:, *slices(tile)],
                num_classes=self.num_classes,
                head=self.head,
                calibration=self.calibration,
            )
        return _finite(means, name) if self.strict else means


class _Drawing:
    """Labels of an image that are drawn plane by plane, in one tile or several."""

    def __init__(
        self,
        segmenter: Segmenter,
        shape: tuple[int, ...],
        axis: int,
        probabilities: np.ndarray | None,
        watch: Watch | None,
    ) -> None:
        """Start with background; see `Segmenter.__call__`."""
        self._segmenter, self._axis, self._watch = segmenter, axis, watch
        few = segmenter.num_classes <= 256
        self._labels = np.zeros(shape, np.uint8 if few else np.uint16)
        self._kept = probabilities
        threshold = segmenter.threshold
        self._marked = None if threshold is None else np.zeros(shape, bool)

    def add(self, planes: Iterator[np.ndarray], tile: Tile) -> None:
        """Draw the likeliest class of each pixel of a tile."""
        rows, kept, marked = (
            None if part is None else np.moveaxis(part, self._axis, 0)[:, *slices(tile)]
            for part in (self._labels, self._kept, self._marked)
        )
        assert rows is not None, "there are labels"
        calibration = self._segmenter.calibration
        threshold = self._segmenter.threshold
        regions = self._segmenter.regions
        chosen = _likeliest if regions is None else regions.written
        for index, plane in enumerate(planes):
            if self._watch is not None:
                part = slices(tile)
                before, after = part[: self._axis], part[self._axis :]
                self._watch((*before, index, *after), plane)
            # A temperature cannot change the label, but its rounding could.
            rows[index] = chosen(plane)
            if threshold is not None and marked is not None:
                marked[index] = threshold.reached(plane)
            if kept is not None:
                kept[index] = plane if calibration is None else calibration(plane)

    def finished(self, spacing: tuple[float, ...] | None) -> np.ndarray:
        """Return the labels, postprocessed, and the threshold's."""
        labels = apply_steps(self._labels, self._segmenter.steps, spacing=spacing)
        if self._segmenter.threshold is not None:
            labels[self._marked] = self._segmenter.threshold.index
        return labels


def _likeliest(plane: np.ndarray) -> np.ndarray:
    """Return the likeliest class of each pixel."""
    return np.asarray(plane.argmax(axis=-1))


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
    previous: Previous | None = None,
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
        previous=previous,
    )
    return Segmenter((member,), steps, head=head)
