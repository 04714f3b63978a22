"""Builds the TFDS set of the MNI ICBM152 template in the nilearn package."""

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from unet_jax.datasets.slices import installed_folder, read_volume, slice_features
from unet_jax.errors import InputError

CLASS_NAMES = ("background", "CSF and other", "grey matter", "white matter")

SLICE_AXIS = 2
"""Axial slices: the inferior-superior axis of a volume in RAS order."""

SLABS_MM = {
    "train": ((-63, -14), (38, 78)),
    "validation": ((-9, 7),),
    "test": ((12, 33),),
}
"""First and last slice position of each slab in MNI millimetres, both inclusive.

Neighbouring slices are nearly equal, so the splits are slabs with gaps of 5 mm: random
slices would put a near copy of every test slice into training. Training slabs are on
both sides of the others, so the test slices show anatomy that training has seen.
"""

MIN_LABELLED_PIXELS = 1000
"""A slice belongs to the set if more pixels than this are not background."""

_SHAPE = (197, 233, 189)
_ORIGIN_MM = (-98, -134, -72)

_DESCRIPTION = """\
Axial slices, 1 mm apart, of the MNI ICBM152 2009a nonlinear symmetric T1 template, in
the 8-bit, skull-stripped form that the nilearn package carries. The label is made of
the template's own tissue probability maps (8-bit, 255 is certain): white matter where
wm > 127 and wm > gm, grey matter where gm > 127 and gm >= wm, "CSF and other" where
T1 > 0 otherwise, else background. There is no CSF map in the package.

This is one average of 152 brains. Its splits are slabs of that one brain: a score on
the test slab is no claim about new people.

Source: nilearn (`nilearn.datasets.load_mni152_template` and its grey- and white-matter
counterparts), from
https://www.bic.mni.mcgill.ca/~vfonov/icbm/2009/mni_icbm152_nlin_sym_09a_nifti.zip
"""

_LICENSE = """\
Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal
Neurological Institute, McGill University. Permission to use, copy, modify, and
distribute this software and its documentation for any purpose and without fee is
hereby granted, provided that the above copyright notice appear in all copies. The
authors and McGill University make no representations about the suitability of this
software for any purpose. It is provided "as is" without express or implied warranty.
The authors are not responsible for any data loss, equipment damage, property loss, or
injury to subjects or patients resulting from the use or misuse of this software
package.
"""

_CITATION = """\
@article{fonov2011unbiased,
  title = {Unbiased average age-appropriate atlases for pediatric studies},
  author = {Fonov, Vladimir and Evans, Alan C. and Botteron, Kelly and Almli, C. Robert
            and McKinstry, Robert C. and Collins, D. Louis},
  journal = {NeuroImage},
  volume = {54},
  number = {1},
  pages = {313--327},
  year = {2011},
  doi = {10.1016/j.neuroimage.2010.07.033},
}
"""


def tissue_labels(*, t1: np.ndarray, grey: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Compute the class of every voxel from the template and its two tissue maps.

    Args:
        t1: ``(x, y, z)`` uint8, 0 outside the brain.
        grey: ``(x, y, z)`` uint8, probability of grey matter times 255.
        white: ``(x, y, z)`` uint8, probability of white matter times 255.

    Returns: ``(x, y, z)`` uint8, an index into ``CLASS_NAMES``.
    """
    labels = (t1 > 0).astype(np.uint8)
    labels[(grey > 127) & (grey >= white)] = 2
    labels[(white > 127) & (white > grey)] = 3
    return labels


def load_template(kind: str) -> np.ndarray:
    """Read one map of the template from the installed nilearn package.

    Args:
        kind: "t1", "gm" or "wm".

    Returns: ``(197, 233, 189)`` uint8 in RAS order, with voxels of 1 mm.
    Raises: InputError: nilearn is not installed, or has another template.
    """
    folder = installed_folder("nilearn")
    if folder is None:
        raise InputError(
            "mni152_tissue: the package nilearn, which carries the template, is not "
            "installed; run `pip install 'nilearn>=0.14'`"
        )
    name = f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    path = folder / "datasets" / "data" / name
    fix = "run `pip install --force-reinstall 'nilearn>=0.14'`"
    volume, voxels = read_volume(path, fix=fix)
    affine = np.eye(4)
    affine[:3, 3] = _ORIGIN_MM
    if voxels.shape != _SHAPE or not np.array_equal(volume.affine, affine):
        raise InputError(
            f"{path}: shape {voxels.shape}, origin {volume.affine[:3, 3].tolist()}; "
            f"expected {_SHAPE} at 1 mm, origin {_ORIGIN_MM}; {fix}"
        )
    return voxels.astype(np.uint8, copy=False)


class Mni152Tissue(tfds.core.GeneratorBasedBuilder):
    """Slices of the ICBM152 T1 template with four tissue classes."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012, TFDS's own form

    def _info(self) -> tfds.core.DatasetInfo:
        """Describe the features."""
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=slice_features(
                _SHAPE[:2],
                np.uint8,
                position_mm=tfds.features.Scalar(np.float32),
                volume_mean=tfds.features.Scalar(np.float32),
                volume_deviation=tfds.features.Scalar(np.float32),
            ),
            supervised_keys=("image", "label"),
            homepage="https://nist.mni.mcgill.ca/icbm-152-nonlinear-atlases-2009/",
            license=_LICENSE,
            citation=_CITATION,
            # Examples keep the order of the slices.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        """Split the labelled slices into slabs; nothing is downloaded."""
        image = load_template("t1")
        label = tissue_labels(
            t1=image, grey=load_template("gm"), white=load_template("wm")
        )
        return {
            split: self._generate_examples(image, label, slabs)
            for split, slabs in SLABS_MM.items()
        }

    def _generate_examples(
        self, image: np.ndarray, label: np.ndarray, slabs: tuple[tuple[int, int], ...]
    ) -> Iterator[tuple[int, dict]]:
        """Yield the slices of one split, lowest first."""
        inside = image[image > 0].astype(np.float64)
        origin = _ORIGIN_MM[SLICE_AXIS]
        positions = (z for first, last in slabs for z in range(first, last + 1))
        for index in (position - origin for position in positions):
            labels = label[:, :, index]
            if np.count_nonzero(labels) <= MIN_LABELLED_PIXELS:
                continue
            yield (
                index,
                {
                    "image": np.ascontiguousarray(image[:, :, index, None]),
                    "label": np.ascontiguousarray(labels),
                    "volume": "mni152",
                    "slice_index": index,
                    "slice_axis": SLICE_AXIS,
                    "position_mm": float(index + origin),
                    "spacing": np.ones(3, np.float32),
                    "volume_mean": inside.mean(),
                    "volume_deviation": inside.std(),
                },
            )
