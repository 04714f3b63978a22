"""The W-Net (Xia and Kulis 2017, arXiv:1711.08506): two U-Nets, one after the other."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from unet_jax.models.network import Outputs, outputs_of
from unet_jax.models.unet import UNet


class WNet(nn.Module):
    """An encoder to soft clusters, and a decoder that makes the image of them alone.

    Both are U-Nets with the same attributes. The decoder sees no more of an image than
    the softmax of its clusters, so that these have to tell what is in it. The paper's
    have depthwise separable convolutions, from 64 channels on; these are the project's
    own, plain ones.

    Attributes:
        num_classes: clusters.
        unet: makes a U-Net of ``num_classes``, ``dtype``, ``axis_name`` and ``name``.
        dtype: compute dtype.
        axis_name: mapped axis over which batch norm is synchronised; None for none.
    """

    num_classes: int
    unet: Callable[..., UNet]
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch *spatial channels"],
        *,
        train: bool = False,
        keys: Key[Array, " batch"] | None = None,
    ) -> Outputs:
        """Return the cluster scores of every pixel, and the image made of them.

        The arguments are those of `UNet`. A compiled function that does not read the
        reconstruction does not run the decoder.

        Raises:
            ValueError: as `UNet`, or a U-Net that loses the border or has more than
                one output.
        """
        encoder = self._half("encoder", self.num_classes)
        if encoder.padding != "SAME" or encoder.deep_supervision:
            raise ValueError(
                f"A W-Net needs padding 'SAME' and deep_supervision 0; found "
                f"{encoder.padding!r} and {encoder.deep_supervision}"
            )
        logits = outputs_of(encoder(x, train=train, keys=keys)).logits
        decoder = self._half("decoder", x.shape[-1])
        if keys is not None:
            # Dropout of the decoder must not repeat that of the encoder.
            keys = jax.vmap(jax.random.fold_in, (0, None))(keys, 1)
        made = decoder(jax.nn.softmax(logits, axis=-1), train=train, keys=keys)
        return Outputs(logits, reconstruction=outputs_of(made).logits)

    def _half(self, name: str, channels: int) -> UNet:
        """Make one of the two U-Nets."""
        return self.unet(
            num_classes=channels, dtype=self.dtype, axis_name=self.axis_name, name=name
        )
