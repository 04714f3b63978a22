"""From an image to its labels: preprocess, windows, network, and back.

This is the chain that validation, the test split and prediction on new files share.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import InputError, RunError
from unet_jax.inference.postprocess import Step, apply_steps
from unet_jax.inference.sliding_window import stream_bands
from unet_jax.losses.targets import Head, head_probabilities
from unet_jax.method import Method, Reference
from unet_jax.models.network import outputs_of
from unet_jax.runtime.compilation import jit_network


def stack_axis(preprocessing: Preprocessing, image_dims: int) -> int | None:
    """Say along which axis an image is a stack of what the network takes.

    Args:
        preprocessing: of the network.
        image_dims: spatial axes of the image.

    Returns:
        The axis of a volume's slices for a 2-D network; None where the network takes
        the image as it is.

    Raises:
        InputError: the network cannot take such an image.
    """
    if image_dims == preprocessing.network_dims:
        return None
    if image_dims == 3 and preprocessing.network_dims == 2:
        return preprocessing.slice_axis
    raise InputError(
        f"found an image with {image_dims} spatial axes, expected "
        f"{preprocessing.network_dims} as the network's; give it volumes, or train one "
        f"with a train.patch_size of {image_dims} numbers"
    )


class WindowForward(Protocol):
    """A network as windows need it."""

    def __call__(
        self, variables: dict[str, Any], windows: np.ndarray, wanted: int | None = None
    ) -> jax.Array:
        """Give probabilities of ``(windows, *window, channels)``.

        Those behind the first ``wanted`` windows may be zeros.
        """
        ...


def make_forward(
    model: nn.Module,
    *,
    head: Head = "softmax",
    mirror_axes: Sequence[int] = (),
    in_turn: bool = False,
) -> WindowForward:
    """Build ``forward(variables, windows, wanted) -> probabilities``, compiled once.

    The windows are shared among the local devices where their number allows it.

    Args:
        model: the network.
        head: how its scores become probabilities: the softmax of all classes, or the
            sigmoid of each class above 0, of which the background is 1 minus the
            largest, so that a pixel is background where no class reaches 1/2.
        mirror_axes: spatial axes; the result is the mean over all ways to mirror them.
        in_turn: let one window after the other go through the network, in one call that
            takes the memory of one and uses it again. They are not shared then.

    Returns:
        A function of variables and ``(windows, *window, channels)`` float32.
    """
    devices = np.asarray(jax.local_devices())
    mesh = Mesh(devices, ("d",))
    flips = [
        tuple(1 + axis for axis in chosen)
        for count in range(len(mirror_axes) + 1)
        for chosen in itertools.combinations(mirror_axes, count)
    ]

    def probabilities(variables, windows):
        total = 0.0
        for flip in flips:
            made = model.apply(variables, jnp.flip(windows, flip), train=False)
            logits = outputs_of(made).logits
            total += jnp.flip(_class_probabilities(logits, head), flip)
        return total / len(flips)

    def one_by_one(variables, windows, wanted):
        one = jax.eval_shape(probabilities, variables, windows[:1])

        def add(index, done):
            window = lax.dynamic_slice_in_dim(windows, index, 1)
            found = probabilities(variables, window)
            return lax.dynamic_update_slice_in_dim(done, found, index, 0)

        done = jnp.zeros((len(windows), *one.shape[1:]), one.dtype)
        return lax.fori_loop(0, wanted, add, done)

    compiled = jit_network(one_by_one if in_turn else probabilities)

    def placed(variables, windows, wanted=None):
        split = len(windows) % len(devices) == 0 and not in_turn
        spec = PartitionSpec("d") if split else PartitionSpec()
        windows = jax.device_put(windows, NamedSharding(mesh, spec))
        if not in_turn:
            return compiled(variables, windows)
        return compiled(variables, windows, len(windows) if wanted is None else wanted)

    return placed


def _class_probabilities(logits: jax.Array, head: Head) -> jax.Array:
    """Probabilities of all classes, of which the largest is the label."""
    probabilities = head_probabilities(logits, head)
    if head == "softmax":
        return probabilities
    others = probabilities[..., 1:]
    background = 1 - jnp.max(others, axis=-1, keepdims=True)
    return jnp.concatenate([background, others], axis=-1)


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """A trained network bound to the preprocessing that it was trained with.

    Attributes:
        forward: from `make_forward`.
        variables: parameters and statistics of the network.
        preprocessing: learnt from the training split.
        num_classes: of the network.
        window: pixels of the network's output for a window.
        margin: pixels that its input has more, on each side.
        multiple: number that windows start at multiples of, an axis.
        overlap: share of a window that its neighbour covers too.
        window_batch: windows in one call of the network.
        groups: the channels of each class, where these are clusters that were named;
            None where channel i is class i.
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

    @property
    def classes(self) -> int:
        """Number of classes of the probabilities."""
        return self.num_classes if self.groups is None else len(self.groups)

    def band_axis(self, shape: Sequence[int]) -> int:
        """Choose the axis along which the scores of a band take the least memory.

        Args:
            shape: spatial shape of an image.

        Returns:
            The axis: the longest but for the window's own size along it.
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
    ) -> Iterator[np.ndarray]:
        """Give the probabilities of each plane of an image, in order.

        Args:
            image: ``(*spatial, channels)``.
            spacing: millimetres a pixel and axis, or None.
            axis: that planes are taken along.
            name: what messages call the image.
            reference: see `Case`.

        Yields:
            ``(*rest, classes)`` float32 on the image's own grid; valid until the next.
        """
        prepared, inverse = self.preprocessing.view(
            image, spacing, name=name, reference=reference
        )
        window, margin, multiple, squeezed = self._windows(prepared.ndim - 1)

        def first(sizes: Sequence[int]) -> tuple[int, ...]:
            return (sizes[axis], *sizes[:axis], *sizes[axis + 1 :])

        def forward(windows: np.ndarray, wanted: int) -> np.ndarray:
            # The network knows the axes in their own order, and no single slices.
            windows = np.moveaxis(windows, 1, 1 + axis)
            if squeezed is not None:
                windows = windows.squeeze(1 + squeezed)
            scores = np.asarray(self.forward(self.variables, windows, wanted))
            if squeezed is not None:
                scores = np.expand_dims(scores, 1 + squeezed)
            if self.groups is not None:
                sums = [scores[..., list(group)].sum(-1) for group in self.groups]
                scores = np.stack(sums, axis=-1)
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
        )
        return inverse.planes(bands, axis=axis, num_classes=self.classes)

    def _windows(
        self, axes: int
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int | None]:
        """Window, margin and multiple for an image, and the axis of single slices."""
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
    """What segments images: a network, or the mean of the probabilities of several.

    The mean is taken on the image's own grid, so that preprocessings may differ.

    Attributes:
        members: at least one; of the same classes.
        steps: what is done to the labels afterwards.
        strict: refuse probabilities that are NaN. Validation does not: the loss of the
            next step ends a run that diverged, and names the last good checkpoint.
    """

    members: tuple[Member, ...]
    steps: tuple[Step, ...] = ()
    strict: bool = True

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return self.members[0].classes

    @property
    def method(self) -> Method:
        """The segmenter as the scorer takes it."""
        return Method(self, gives_probabilities=True, wants_reference=True)

    def named(self, groups: tuple[tuple[int, ...], ...] | None) -> "Segmenter":
        """Return one whose classes are these groups of channels; None for channels."""
        members = (dataclasses.replace(one, groups=groups) for one in self.members)
        return dataclasses.replace(self, members=tuple(members))

    def of_clusters(self) -> "Segmenter":
        """Return one that gives the channels themselves, of every pixel.

        Else what a crop leaves out would be channel 0, whatever that has learnt.
        """
        members = (
            dataclasses.replace(
                one,
                groups=None,
                preprocessing=dataclasses.replace(
                    one.preprocessing, crop_nonzero=False
                ),
            )
            for one in self.members
        )
        return Segmenter(tuple(members))

    def __call__(
        self,
        image: np.ndarray,
        spacing: tuple[float, ...] | None,
        *,
        name: str = "image",
        reference: Reference = None,
        probabilities: np.ndarray | None = None,
    ) -> np.ndarray:
        """Segment an image.

        Args:
            image: ``(*spatial, channels)``.
            spacing: millimetres of a pixel along each axis, or None.
            name: name of the image in messages.
            reference: see `Method`.
            probabilities: array ``(*spatial, classes)`` to fill, or None.

        Returns:
            Class index of every pixel ``(*spatial)``.
        """
        axis = self.members[0].band_axis(image.shape[:-1])
        streams = [
            member.probability_planes(
                image, spacing, axis=axis, name=name, reference=reference
            )
            for member in self.members
        ]
        means: Iterator[np.ndarray] = (
            planes[0] if len(planes) == 1 else np.mean(planes, axis=0)
            for planes in zip(*streams, strict=True)
        )
        if self.strict:
            means = _finite(means, name)
        labels = _best_classes(
            means,
            image.shape[:-1],
            axis,
            self.num_classes,
            probabilities,
        )
        return apply_steps(labels, self.steps)


def _finite(planes: Iterator[np.ndarray], name: str) -> Iterator[np.ndarray]:
    """Refuse probabilities that are none: the likeliest class would be the first."""
    for plane in planes:
        if not np.isfinite(plane.sum()):
            raise RunError(
                f"{name}: the network gives probabilities that are NaN or infinite; "
                "expected 0 to 1; train again with a lower optimizer.learning_rate, or "
                "look for extreme values in the image"
            )
        yield plane


def _best_classes(
    planes: Iterator[np.ndarray],
    shape: tuple[int, ...],
    axis: int,
    num_classes: int,
    probabilities: np.ndarray | None,
) -> np.ndarray:
    """Keep the likeliest class of each pixel, and the probabilities where asked to."""
    labels = np.zeros(shape, np.uint8 if num_classes <= 256 else np.uint16)
    rows = np.moveaxis(labels, axis, 0)
    kept = None if probabilities is None else np.moveaxis(probabilities, axis, 0)
    for index, plane in enumerate(planes):
        rows[index] = plane.argmax(axis=-1)
        if kept is not None:
            kept[index] = plane
    return labels


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
) -> Segmenter:
    """Bind a trained network to the preprocessing that it was trained with.

    Args:
        forward: from `make_forward`.
        variables: parameters and statistics of the network.
        preprocessing: learnt from the training split.
        num_classes: of the network.
        patch_size: pixels of a window, those of training.
        overlap: share of a window that its neighbour covers too.
        window_batch: windows in one call of the network.
        margin: pixels on each side that a network without padding gives no scores for.
        multiple: its total stride.
        steps: what is done to the labels afterwards.

    Returns:
        A ``predict_fn(image, spacing) -> labels`` on the image's own grid.
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
    )
    return Segmenter((member,), steps)
