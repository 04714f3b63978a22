"""What a network is: the protocol that training, inference and planning rely on."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from unet_jax.models import ops


@flax.struct.dataclass
class Outputs:
    """What a network makes of images.

    Attributes:
        logits: ``(batch, *spatial, classes)``, of the image's size, or of the centre of
            the image for a network without padding.
        deep: logits on coarser grids for deep supervision, finest first; each has the
            losses of the logits at half the weight of the one before.
        reconstruction: ``(batch, *spatial, channels)``, the image made again, for the
            loss of that name; None for a network that makes none.
    """

    # Not Array: mapped over, a pytree holds shapes, keys and the like.
    logits: Any
    deep: tuple[Any, ...] = ()
    reconstruction: Any = None


@runtime_checkable
class Sizes(Protocol):
    """Which input sizes a network takes. `sizes.Pyramid` computes it for stages.

    Attributes:
        margin: pixels that the logits lack on each side of each axis.
        multiple: pixels between possible places of windows that tile an image.
    """

    @property
    def margin(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def multiple(self) -> tuple[int, ...]: ...  # noqa: D102

    def tiling_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the smallest size, not smaller than this one, of which logits tile."""
        ...


@runtime_checkable
class Network(Protocol):
    """A linen module that segments images; any module that has this call.

    Its constructor takes ``num_classes`` and, where it uses them, ``dtype`` (compute
    dtype; parameters are float32) and ``axis_name`` (mapped axis over which batch norm
    is synchronised). The other fields are options of the config. It pads and crops by
    itself what its strides do not divide. Where it loses the border instead, it has a
    method ``sizes(axes) -> Sizes``. Where it can start from a network of another form,
    it has a method ``adapted(params) -> params``.
    """

    def __call__(
        self,
        x: Float[Array, "batch *spatial channels"],
        *,
        train: bool = False,
        keys: Key[Array, " batch"] | None = None,
    ) -> Float[Array, "batch *_ classes"] | Outputs:
        """Return the logits, or all outputs.

        Args:
            x: image, channels last, with two or three spatial axes.
            train: whether the step trains: dropout and deep supervision are on, and
                batch norm uses and records the statistics of this batch.
            keys: a random key for each example, for dropout.
        """
        ...


def outputs_of(made: Any) -> Outputs:
    """Return what a network made as `Outputs`."""
    return made if isinstance(made, Outputs) else Outputs(made)


class _AnySize:
    """Sizes of a network that pads: all fit."""

    def __init__(self, axes: int) -> None:
        """Know the number of axes."""
        self.margin, self.multiple = (0,) * axes, (1,) * axes

    def tiling_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the size itself."""
        return tuple(size)


def sizes_of(network: nn.Module, axes: int) -> Sizes:
    """Return which sizes a network takes on its spatial axes: what it says, or any."""
    own = getattr(network, "sizes", None)
    return _AnySize(axes) if own is None else own(axes)


def adapted_params(network: nn.Module, params: Any) -> Any:
    """Return parameters of another network as this one can start from them.

    That is what the network's own method ``adapted`` makes of them; without one, the
    parameters as they are.
    """
    own = getattr(network, "adapted", None)
    return params if own is None else own(params)


def output_shapes(
    network: nn.Module, size: tuple[int, ...], *, channels: int = 1
) -> Outputs:
    """Return the shapes of what a network makes of one image in training.

    Nothing is computed. What does not fit together in the network raises its errors.

    Returns:
        Outputs whose arrays are ``jax.ShapeDtypeStruct``.
    """
    image = jax.ShapeDtypeStruct((1, *size, channels), np.float32)

    def first_outputs(x: jax.Array) -> Any:
        key = jax.random.key(0)
        return network.init_with_output(key, x, train=True, keys=key[None])[0]

    return outputs_of(jax.eval_shape(first_outputs, image))


class Implemented(nn.Module):
    """A network whose operations are traced in a given implementation.

    Its parameters are those of the network itself, without a level of their own.

    Attributes:
        network: a module that fulfils `Network`.
        implementation: see `ops.use_implementation`.
    """

    network: nn.Module
    implementation: str | None = None

    def setup(self) -> None:
        """Take the network's place in the tree of parameters."""
        nn.share_scope(self, self.network)

    def __call__(self, x: Any, *, train: bool = False, keys: Any = None) -> Any:
        """Call the network."""
        with ops.use_implementation(self.implementation):
            return self.network(x, train=train, keys=keys)

    def sizes(self, axes: int) -> Sizes:
        """Return the sizes of the network."""
        return sizes_of(self.network, axes)

    def adapted(self, params: Any) -> Any:
        """Return parameters as the network can start from them."""
        return adapted_params(self.network, params)


def check_rank(x: Float[Array, "..."]) -> None:
    """Refuse what is neither a batch of pictures nor one of volumes.

    Raises:
        ValueError: there are not two or three spatial axes.
    """
    if x.ndim not in (4, 5):
        raise ValueError(
            f"The input has shape {x.shape}; expected (batch, *spatial, channels) with "
            "2 or 3 spatial axes"
        )


class IndivisibleError(ValueError):
    """A network is traced with symbolic sizes that may need padding.

    Attributes:
        multiples: what the size of each axis has to divide by.
    """

    def __init__(self, multiples: Sequence[int]) -> None:
        """Keep the multiples."""
        self.multiples = tuple(multiples)
        super().__init__(
            f"a symbolic size is not known to divide by {self.multiples}; expected "
            "sizes as 8*h for a multiple of 8"
        )


def pad_to_multiple(
    x: Float[Array, "batch *spatial channels"], multiples: Sequence[int]
) -> Float[Array, "batch *out_spatial channels"]:
    """Repeat the last pixel of each axis until its size divides by its multiple.

    Zeros would be an edge that the image does not have, and move the norms' statistics.

    Raises:
        IndivisibleError: a symbolic size is not known to divide by its multiple.
    """
    sizes = x.shape[1:-1]
    pads = [(0, -size % step) for size, step in zip(sizes, multiples, strict=True)]
    if not all(isinstance(behind, int | np.integer) for _, behind in pads):
        raise IndivisibleError(multiples)
    return jnp.pad(x, ((0, 0), *pads, (0, 0)), mode="edge")
