"""The operations of networks; `face` documents them, the other files implement them."""

from unet_jax.models.ops.depthwise import depthwise_convolve, depthwise_up_convolve
from unet_jax.models.ops.face import (
    Pixels,
    add,
    add_bias,
    arranged,
    as_array,
    average_pool,
    batch_moments,
    cast,
    centre_crop,
    channels_of,
    convolve,
    gate_pixels,
    group_norm,
    max_pool,
    mix_and_resize,
    resize_up,
    scale_channels,
    standardise,
    up_convolve,
)
from unet_jax.models.ops.implementation import (
    IMPLEMENTATIONS,
    current_implementation,
    use_implementation,
)
from unet_jax.models.ops.packing import elementwise

__all__ = [
    "IMPLEMENTATIONS",
    "Pixels",
    "add",
    "add_bias",
    "arranged",
    "as_array",
    "average_pool",
    "batch_moments",
    "cast",
    "centre_crop",
    "channels_of",
    "convolve",
    "current_implementation",
    "depthwise_convolve",
    "depthwise_up_convolve",
    "elementwise",
    "gate_pixels",
    "group_norm",
    "max_pool",
    "mix_and_resize",
    "resize_up",
    "scale_channels",
    "standardise",
    "up_convolve",
    "use_implementation",
]
