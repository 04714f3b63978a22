"""Names of nnU-Net's normalisations, by channel and in our terms."""

from unet_jax.errors import InputError

_BY_CHANNEL = {
    "ct": "CTNormalization",
    "nonorm": "NoNormalization",
    "zscore": "ZScoreNormalization",
    "rescale_to_0_1": "RescaleTo01Normalization",
    "rgb_to_0_1": "RGBTo01Normalization",
}
_OURS = {
    "CTNormalization": "percentile",
    "ZScoreNormalization": "zscore_whole",
    "RescaleTo01Normalization": "unit_range",
    "RGBTo01Normalization": "rgb",
    "NoNormalization": "none",
}


def normalization_of(channel: str) -> str:
    """Return nnU-Net's normalisation for a channel of this name.

    >>> normalization_of("CT"), normalization_of("T1")
    ('CTNormalization', 'ZScoreNormalization')
    """
    return _BY_CHANNEL.get(channel.casefold(), _BY_CHANNEL["zscore"])


def may_be_masked(normalization: str) -> bool:
    """Tell whether a normalisation can leave the empty part of an image at zero."""
    return normalization == _BY_CHANNEL["zscore"]


def scheme_of(normalization: str, *, masked: bool) -> str:
    """Return our scheme of a channel (`unet_jax.data.schemes`).

    Args:
        normalization: name of nnU-Net's class.
        masked: whether the empty part stays zero.

    Raises:
        InputError: there is no such scheme.
    """
    if normalization not in _OURS:
        raise InputError(
            f"plans.json: a channel is normalised by {normalization}; expected one of "
            f"{', '.join(_OURS)}"
        )
    kept = masked and may_be_masked(normalization)
    return "zscore_filled" if kept else _OURS[normalization]
