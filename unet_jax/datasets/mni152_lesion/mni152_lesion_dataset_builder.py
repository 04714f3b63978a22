"""Builds the TFDS set of synthetic lesions in deformed copies of the template."""

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from unet_jax.datasets.mni152_lesion.implant import deformed, implant, scanned
from unet_jax.datasets.mni152_tissue.mni152_tissue_dataset_builder import load_template
from unet_jax.datasets.slices import slice_features

CLASS_NAMES = ("background", "lesion")

SUBJECTS = {"train": 32, "validation": 6, "test": 8}
"""Synthetic heads of each split."""

SLICES, STEP_MM = 16, 2
"""Slices of a head, and the distance between them in millimetres."""

SLICE_AXIS = 2
MOST_LESIONS = 5

SPACING = (1.0, 1.0, float(STEP_MM))
"""Millimetres of a voxel along each axis."""

_FIRST = (48, 96)  # lowest and highest first slice of a slab in the template
_SEED = 152

_DESCRIPTION = """\
SYNTHETIC lesions. Each subject is a slab of the MNI ICBM152 T1 template (the average of
152 brains, as the nilearn package carries it), turned, scaled, perhaps mirrored, and
bent by a smooth random field, with a random gain, bias and noise. One to five lesions
of random place, size (mean radius 3 to 16 mm), irregular smooth outline, graded edge
and contrast (darker or brighter than the tissue around) are implanted; where they are
is known exactly. Many slices have no lesion.

Nothing here is a disease, and all heads are one template: a score says that a method
finds what was implanted, and nothing about patients.

Source of the template: nilearn; see `mni152_tissue` for its notice and licence.
"""


class Mni152Lesion(tfds.core.GeneratorBasedBuilder):
    """Slices of synthetic heads with synthetic lesions."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012, TFDS's own form

    def _info(self) -> tfds.core.DatasetInfo:
        """Describe the features."""
        height, width, _ = load_template("t1").shape
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=slice_features(
                (height, width), np.uint8, lesions=tfds.features.Scalar(np.int64)
            ),
            supervised_keys=("image", "label"),
            # Examples keep the order of subjects and slices.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        """Number the subjects over all splits; nothing is downloaded."""
        template = load_template("t1")
        splits, first = {}, 0
        for split, count in SUBJECTS.items():
            splits[split] = self._generate_examples(
                template, range(first, first + count)
            )
            first += count
        return splits

    def _generate_examples(
        self, template: np.ndarray, subjects: range
    ) -> Iterator[tuple[int, dict]]:
        """Yield the slices of each subject, lowest first."""
        for subject in subjects:
            image, label, lesions = make_subject(template, subject)
            for index in range(SLICES):
                yield (
                    subject * SLICES + index,
                    {
                        "image": np.ascontiguousarray(image[:, :, index, None]),
                        "label": np.ascontiguousarray(label[:, :, index]),
                        "volume": f"synthetic{subject:02d}",
                        "slice_index": index,
                        "slice_axis": SLICE_AXIS,
                        "spacing": np.array(SPACING, np.float32),
                        "lesions": lesions,
                    },
                )


def make_subject(
    template: np.ndarray, subject: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Make one synthetic head.

    Args:
        template: scan ``(x, y, z)`` uint8 with voxels of 1 mm.
        subject: number of the subject; the head depends only on it.

    Returns: Image and label ``(x, y, SLICES)`` uint8, and the number of its lesions.
    """
    rng = np.random.default_rng([_SEED, subject])
    head = deformed(
        template, rng=rng, first=int(rng.integers(*_FIRST)), count=SLICES, step=STEP_MM
    )
    # Interpolation leaves a rim of small values outside the brain.
    head[head < 8] = 0
    count = int(rng.integers(1, MOST_LESIONS + 1))
    image, label, lesions = implant(head, rng=rng, count=count, spacing=SPACING)
    return scanned(image, rng=rng), label.astype(np.uint8), len(lesions)
