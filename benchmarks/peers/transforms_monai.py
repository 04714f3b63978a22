"""Builds nnU-Net's training transforms from those of MONAI."""

import math
from typing import Any

import monai.data
import torch
from monai import transforms

PACKAGES = ("torch", "numpy", "monai")

_BOTH = ("image", "label")


class Transforms:
    """The same list; for one channel, so that a fraction of channels is one of images.

    MONAI draws factors evenly between the limits, where nnU-Net and ours draw half of
    them below 1; zooms evenly, where they draw their inverse so; a rotation and a
    zoom of the same image interpolate twice.
    """

    def __init__(self, shape: tuple[int, ...], augment: dict[str, Any]) -> None:
        """Build the transforms.

        Args:
            shape: pixels an axis.
            augment: options that differ from nnU-Net's; MONAI's list has none of them.
        """
        dims = len(shape)
        if set(augment) != {"elastic_probability"}:
            raise ValueError(f"augment: found {augment}, expected elastic off alone")
        monai.data.set_track_meta(False)
        modes = {"mode": ("bilinear", "nearest"), "padding_mode": "reflection"}
        limit = math.radians(180 if dims == 2 else 30)
        ranges = dict.fromkeys(("range_x", "range_y", "range_z")[: 2 * dims - 3], limit)
        linear = {2: "bilinear", 3: "trilinear"}[dims]
        self.rotation = transforms.RandRotated(_BOTH, prob=0.2, **ranges, **modes)
        self.scaling = transforms.RandZoomd(
            _BOTH,
            prob=0.2,
            min_zoom=1 / 1.4,
            max_zoom=1 / 0.7,
            mode=(linear, "nearest"),
            padding_mode="reflect",
        )
        self.flips = [
            transforms.RandFlipd(_BOTH, prob=0.5, spatial_axis=axis)
            for axis in range(dims)
        ]
        self.noise = transforms.RandGaussianNoised("image", prob=0.1, std=0.1)
        sigma = (0.5, 1.0)
        self.blur = transforms.RandGaussianSmoothd(
            "image", sigma, sigma, sigma, prob=0.1
        )
        self.brightness = transforms.RandScaleIntensityd("image", 0.25, prob=0.15)
        self.contrast = transforms.RandScaleIntensityFixedMeand(
            "image", 0.25, preserve_range=True, prob=0.15
        )
        self.low_resolution = transforms.RandSimulateLowResolutiond(
            "image",
            prob=0.125,
            zoom_range=(0.5, 1.0),
            downsample_mode="nearest-exact",
            upsample_mode=linear,
        )
        gamma = {"gamma": (0.7, 1.5), "retain_stats": True}
        self.gamma_inverted = transforms.RandAdjustContrastd(
            "image", prob=0.1, invert_image=True, **gamma
        )
        self.gamma = transforms.RandAdjustContrastd("image", prob=0.3, **gamma)
        self._modes = modes["mode"]
        values = [self.noise, self.blur, self.brightness, self.contrast]
        gammas = [self.gamma_inverted, self.gamma]
        self._all = transforms.Compose(
            [
                *(self.rotation, self.scaling, *values),
                *(self.low_resolution, *gammas, *self.flips),
            ]
        )

    def seed(self, seed: int) -> None:
        """Seed the random draws."""
        self._all.set_random_state(seed=seed)

    def __call__(
        self, image: torch.Tensor, label: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment an example ``(1, *spatial)``; the arguments are not changed."""
        both = self._all({"image": image, "label": label})
        return both["image"], both["label"]

    def facts(self) -> dict[str, Any]:
        """Read the probabilities and limits back from the transforms."""

        def around_one(factors: tuple[float, float]) -> list[float]:
            return [1 + min(factors), 1 + max(factors)]

        angles = [math.degrees(angle) for angle in self.rotation.rand_rotate.range_x]
        zoom = self.scaling.rand_zoom
        blur, resolution = self.blur.rand_smooth, self.low_resolution
        return {
            "flip": [
                self.flips[0].prob,
                [flip.flipper.spatial_axis for flip in self.flips],
            ],
            "rotation": [self.rotation.prob, *(round(angle, 6) for angle in angles)],
            "scaling": [
                self.scaling.prob,
                round(1 / zoom.max_zoom[0], 6),
                round(1 / zoom.min_zoom[0], 6),
            ],
            "elastic": 0.0,
            "noise": [self.noise.prob, 0.0, self.noise.rand_gaussian_noise.std],
            "blur": [self.blur.prob, *blur.sigma_x],
            "brightness": [
                self.brightness.prob,
                *around_one(self.brightness.scaler.factors),
            ],
            "contrast": [self.contrast.prob, *around_one(self.contrast.scaler.factors)],
            "low_resolution": [
                resolution.prob,
                *resolution.zoom_range,
            ],
            "gamma_inverted": [
                self.gamma_inverted.prob,
                *self.gamma_inverted.adjuster.gamma,
            ],
            "gamma": [self.gamma.prob, *self.gamma.adjuster.gamma],
            "interpolation": [
                {"bilinear": "linear"}[self._modes[0]],
                self._modes[1],
            ],
        }
