"""Loss functions of logits and labels, one table of them, and their reduction."""

from unet_jax.losses.binary import (
    balanced_bce,
    bce,
    combo_loss,
    focal_loss,
    weighted_bce,
)
from unet_jax.losses.boundary import (
    boundary_loss,
    hausdorff_dt_loss,
    unet_weighted_cross_entropy,
)
from unet_jax.losses.categorical import cross_entropy, top_k_cross_entropy
from unet_jax.losses.cl_dice import cl_dice_loss
from unet_jax.losses.confusion import mcc_loss, sensitivity_specificity_loss
from unet_jax.losses.lovasz import lovasz_hinge_loss, lovasz_softmax_loss
from unet_jax.losses.overlap import (
    dice_loss,
    focal_tversky_loss,
    generalized_dice_loss,
    jaccard_loss,
    log_cosh_dice_loss,
    tversky_loss,
)
from unet_jax.losses.reduction import reduce
from unet_jax.losses.terms import LossTerm, create_loss_terms
from unet_jax.losses.unsupervised import reconstruction_loss, soft_ncut_loss

__all__ = [
    "LossTerm",
    "balanced_bce",
    "bce",
    "boundary_loss",
    "cl_dice_loss",
    "combo_loss",
    "create_loss_terms",
    "cross_entropy",
    "dice_loss",
    "focal_loss",
    "focal_tversky_loss",
    "generalized_dice_loss",
    "hausdorff_dt_loss",
    "jaccard_loss",
    "log_cosh_dice_loss",
    "lovasz_hinge_loss",
    "lovasz_softmax_loss",
    "mcc_loss",
    "reconstruction_loss",
    "reduce",
    "sensitivity_specificity_loss",
    "soft_ncut_loss",
    "top_k_cross_entropy",
    "tversky_loss",
    "unet_weighted_cross_entropy",
    "weighted_bce",
]
