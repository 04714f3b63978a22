"""Builds nnU-Net's training transforms from batchgeneratorsv2."""

import math
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.intensity.brightness import (
    MultiplicativeBrightnessTransform,
)
from batchgeneratorsv2.transforms.intensity.contrast import (
    BGContrast,
    ContrastTransform,
)
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import (
    GaussianNoiseTransform,
)
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import (
    SimulateLowResolutionTransform,
)
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

PACKAGES = ("torch", "numpy", "batchgeneratorsv2")


class Transforms:
    """The list of nnU-Net's trainer, in its order.

    Interpolation is linear for images and nearest for labels, and beyond the border
    lies the mirror image, as in ours.
    """

    def __init__(self, shape: tuple[int, ...], augment: dict[str, Any]) -> None:
        """Build the transforms.

        Args:
            shape: pixels an axis.
            augment: options that differ from nnU-Net's, with the names of our config.
        """
        self._augment = augment
        self.spatial = self._spatial(shape)
        self._blurring()
        self._brightening()
        self.mirror = MirrorTransform(tuple(range(len(shape))))
        self._all = ComposeTransforms(
            [self.spatial]
            + [step for step in self._value_steps() if step.apply_probability > 0]
            + [self.mirror]
        )

    def _spatial(self, shape: tuple[int, ...]) -> SpatialTransform:
        """Build the transform that rotates and scales."""
        limit = math.radians(180.0 if len(shape) == 2 else 30.0)
        return SpatialTransform(
            shape,
            patch_center_dist_from_border=0,
            random_crop=False,
            p_elastic_deform=0,
            p_rotation=self._fraction("rotation", 0.2),
            rotation=(-limit, limit),
            p_scaling=self._fraction("scaling", 0.2),
            scaling=(0.7, 1.4),
            p_synchronize_scaling_across_axes=1,
            mode_seg="nearest",
            padding_mode_image="reflection",
            border_mode_seg="reflection",
        )

    def _blurring(self) -> None:
        """Build the transforms that remove detail."""
        self.noise = RandomTransform(
            GaussianNoiseTransform((0, 0.1), synchronize_channels=True),
            self._fraction("noise", 0.1),
        )
        self.blur = RandomTransform(
            GaussianBlurTransform((0.5, 1.0), p_per_channel=0.5, benchmark=True),
            self._fraction("blur", 0.2),
        )
        self.low_resolution = RandomTransform(
            SimulateLowResolutionTransform(
                (0.5, 1), False, True, ignore_axes=None, p_per_channel=0.5
            ),
            self._fraction("low_resolution", 0.25),
        )

    def _brightening(self) -> None:
        """Build the transforms that map values to values."""
        whole = {"synchronize_channels": False, "p_per_channel": 1}
        self.brightness = RandomTransform(
            MultiplicativeBrightnessTransform(BGContrast((0.75, 1.25)), **whole),
            self._fraction("brightness", 0.15),
        )
        self.contrast = RandomTransform(
            ContrastTransform(BGContrast((0.75, 1.25)), preserve_range=True, **whole),
            self._fraction("contrast", 0.15),
        )
        self.gamma_inverted, self.gamma = (
            RandomTransform(
                GammaTransform(
                    BGContrast((0.7, 1.5)),
                    p_invert_image=inverted,
                    p_retain_stats=1,
                    **whole,
                ),
                self._fraction(name, probability),
            )
            for name, inverted, probability in (
                ("gamma_inverted", 1, 0.1),
                ("gamma", 0, 0.3),
            )
        )

    def _value_steps(self) -> list[RandomTransform]:
        """Build the transforms of values, in order."""
        return [
            self.noise,
            self.blur,
            self.brightness,
            self.contrast,
            self.low_resolution,
            self.gamma_inverted,
            self.gamma,
        ]

    def _fraction(self, name: str, usual: float) -> float:
        """Probability of a transform: nnU-Net's, or the one given."""
        return self._augment.get(f"{name}_probability", usual)

    def seed(self, seed: int) -> None:
        """Seed the random draws."""
        np.random.seed(seed)
        torch.manual_seed(seed)

    def __call__(
        self, image: torch.Tensor, label: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment an example ``(1, *spatial)``; the arguments are not changed."""
        both = self._all(image=image.clone(), segmentation=label.clone())
        return both["image"], both["segmentation"]

    def facts(self) -> dict[str, Any]:
        """Read probabilities and limits for one channel back from the transforms."""

        def drawn(step: RandomTransform, limits: Any) -> list[Any]:
            factor = step.transform.p_per_channel
            limits = getattr(limits, "contrast_range", limits)
            return [round(step.apply_probability * factor, 6), *map(float, limits)]

        low, high = map(math.degrees, self.spatial.rotation)
        return {
            "flip": [0.5, list(self.mirror.allowed_axes)],
            "rotation": [self.spatial.p_rotation, round(low, 6), round(high, 6)],
            "scaling": [self.spatial.p_scaling, *self.spatial.scaling],
            "elastic": self.spatial.p_elastic_deform,
            "noise": drawn(self.noise, self.noise.transform.noise_variance),
            "blur": drawn(self.blur, self.blur.transform.blur_sigma),
            "brightness": drawn(
                self.brightness, self.brightness.transform.multiplier_range
            ),
            "contrast": drawn(self.contrast, self.contrast.transform.contrast_range),
            "low_resolution": drawn(
                self.low_resolution, self.low_resolution.transform.scale
            ),
            "gamma_inverted": drawn(
                self.gamma_inverted, self.gamma_inverted.transform.gamma
            ),
            "gamma": drawn(self.gamma, self.gamma.transform.gamma),
            "interpolation": [
                {"bilinear": "linear"}[self.spatial.mode_image],
                self.spatial.mode_seg,
            ],
        }
