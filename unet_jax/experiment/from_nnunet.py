"""Turns plans and description of a trained nnU-Net into config and preprocessing."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from unet_jax.configs import nnunet
from unet_jax.data.folder.nnunet import stated_classes, stated_regions
from unet_jax.data.intensity import ChannelStatistics
from unet_jax.data.preprocess import Preprocessing
from unet_jax.data.regions import Region
from unet_jax.errors import InputError
from unet_jax.experiment.planned import rotations
from unet_jax.experiment.regions import with_regions
from unet_jax.labels import IGNORE
from unet_jax.nnunet.architecture import network_options
from unet_jax.nnunet.model_folder import configuration_of
from unet_jax.nnunet.normalization import scheme_of
from unet_jax.report.palette import class_colors

_VOLUMES = {"SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"}
_READERS = {*_VOLUMES, "NaturalImage2DIO", "Tiff3DIO"}
_PLANES = {"is_seg": False, "order_z": 0, "force_separate_z": None}
_RESAMPLING = {
    "data": {**_PLANES, "order": 3},
    "probabilities": {**_PLANES, "order": 1},
}


@dataclasses.dataclass(frozen=True)
class ImportedModel:
    """What a trained nnU-Net is in our terms.

    Attributes:
        config: complete config of a run.
        preprocessing: preprocessing with nnU-Net's numbers.
        order: for each axis of our images, the axis of nnU-Net's network that it is.
        notes: what differs from nnU-Net, one line each.
    """

    config: ConfigDict
    preprocessing: Preprocessing
    order: tuple[int, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Axes:
    """Axes of our images, by those of nnU-Net's network.

    nnU-Net reads a volume with its axes reversed, a picture with a first axis of one,
    and then transposes them; a 2-D network sees slices across the first axis.
    """

    order: tuple[int, ...]
    slice_axis: int
    reader: str

    def ours(self, sizes: Sequence[Any]) -> tuple[Any, ...]:
        """Return sizes along the axes of the network in our order."""
        return tuple(sizes[axis] for axis in self.order)


def imported_model(
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    checkpoint: Mapping[str, Any],
    config: ConfigDict | None = None,
) -> ImportedModel:
    """Describe a trained nnU-Net.

    Args:
        plans: content of ``plans.json``.
        dataset: content of ``dataset.json``.
        checkpoint: content of the checkpoint, of which the weights are not read.
        config: config to start from, which names data to evaluate on; None for
            configs/nnunet.py, without data.

    Raises:
        InputError: the model needs what is not known here: a cascade, another network,
            normalisation or reader.
    """
    try:
        return _imported_model(plans, dataset, checkpoint, config)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            f"plans.json, dataset.json and checkpoint: {type(error).__name__} {error}; "
            "expected the files of one model of nnU-Net 2"
        ) from error


def _imported_model(
    plans: Any, dataset: Any, checkpoint: Any, given: ConfigDict | None
) -> ImportedModel:
    """Describe a model whose files have the expected form."""
    name = checkpoint["init_args"]["configuration"]
    configuration = configuration_of(plans, name)
    if configuration.get("previous_stage"):
        raise InputError(
            f"plans.json: {name} is the second stage of a cascade, expected a network "
            "that needs no other; import 3d_fullres or 3d_lowres"
        )
    axes, notes = _axes(plans, configuration), []
    options = network_options(configuration, order=axes.order)
    # Of the deep outputs the coarsest has no weight in nnU-Net's loss.
    options["deep_supervision"] = max(0, options["deep_supervision"] - 1)
    for kind, expected in _RESAMPLING.items():
        found = configuration.get(f"resampling_fn_{kind}_kwargs", expected)
        function = configuration.get(f"resampling_fn_{kind}")
        if found != expected or function != "resample_data_or_seg_to_shape":
            notes.append(f"{kind} are resampled by {function} there, not as here")
    preprocessing = _preprocessing(plans, dataset, configuration, axes)
    config = nnunet.get_config()
    if given is not None:
        config = given.copy_and_resolve_references()
    with config.unlocked(), config.ignore_type():
        _fill(config, dataset, configuration, preprocessing, axes)
        config.model.options = ConfigDict(options)
        mirrored = checkpoint.get("inference_allowed_mirroring_axes")
        config.eval.mirror = bool(mirrored)
        config.augment.flip_axes = tuple(
            ours for ours, theirs in enumerate(axes.order) if theirs in (mirrored or ())
        )
    return ImportedModel(config, preprocessing, axes.order, tuple(notes))


def _axes(plans: Mapping[str, Any], configuration: Mapping[str, Any]) -> _Axes:
    """Return which of our axes is which of the network."""
    reader, forward = plans["image_reader_writer"], tuple(plans["transpose_forward"])
    dims = len(configuration["patch_size"])
    if reader not in _READERS or sorted(forward) != [0, 1, 2]:
        raise InputError(
            f"plans.json: images are read by {reader} and transposed by {forward}; "
            f"expected one of {', '.join(sorted(_READERS))} and an order of 0, 1, 2"
        )
    if reader == "NaturalImage2DIO":
        ours: list[int] = [axis - 1 for axis in forward]
    else:
        ours = [2 - axis if reader in _VOLUMES else axis for axis in forward]
    if (reader == "NaturalImage2DIO") != (ours[0] == -1):
        raise InputError(
            f"plans.json: pictures are transposed by {forward}, expected 0 first"
        )
    seen = ours[3 - dims :]
    order = tuple(seen.index(axis) for axis in sorted(seen))
    return _Axes(order, max(0, ours[0]), reader)


def _preprocessing(
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    configuration: Mapping[str, Any],
    axes: _Axes,
) -> Preprocessing:
    """Return the preprocessing with the numbers of the plans."""
    names = dataset.get("channel_names", dataset.get("modality"))
    found = plans.get(
        "foreground_intensity_properties_per_channel",
        plans.get("foreground_intensity_properties_by_modality", {}),
    )
    schemes, statistics = [], []
    for index in range(len(names)):
        normalization = configuration["normalization_schemes"][index]
        masked = configuration["use_mask_for_norm"][index]
        schemes.append(scheme_of(normalization, masked=masked))
        row = ChannelStatistics(0.0, 0.0, 0.0, 1.0)  # only percentiles are read
        if schemes[-1] == "percentile":
            stated = found[str(index)]
            keys = ("percentile_00_5", "percentile_99_5", "mean", "std")
            row = ChannelStatistics(*(float(stated[key]) for key in keys))
            row = row._replace(std=max(row.std, 1e-8))
        statistics.append(row)
    return Preprocessing(
        network_dims=len(axes.order),
        slice_axis=axes.slice_axis,
        spacing=_spacing(plans, configuration, axes),
        size=None,
        crop_nonzero=True,
        intensity=tuple(schemes),
        channels=len(schemes),
        statistics=tuple(statistics),
        resampling="nnunet",
    )


def _spacing(
    plans: Mapping[str, Any], configuration: Mapping[str, Any], axes: _Axes
) -> tuple[float, ...] | None:
    """Return millimetres per pixel on our axes; None for pictures, which state none."""
    if axes.reader == "NaturalImage2DIO":
        return None
    steps = [float(step) for step in axes.ours(configuration["spacing"])]
    if len(steps) == 2:  # nothing is resampled across the slices
        across = float(plans["original_median_spacing_after_transp"][0])
        steps.insert(axes.slice_axis, across)
    return tuple(steps)


def _fill(
    config: ConfigDict,
    dataset: Mapping[str, Any],
    configuration: Mapping[str, Any],
    preprocessing: Preprocessing,
    axes: _Axes,
) -> None:
    """Set the keys that a run takes from its data."""
    names, regions = _classes(dataset)
    data, train = config.data, config.train
    data.class_names, data.class_colors = names, class_colors(len(names))
    data.slice_axis, data.spacing = preprocessing.slice_axis, preprocessing.spacing
    data.crop_nonzero, data.zero_outside = True, False
    data.intensity, data.resampling = preprocessing.intensity, "nnunet"
    data.orientation = "" if axes.reader == "NibabelIOWithReorient" else "stored"
    data.dims = preprocessing.network_dims
    config.model.plan = ""
    train.patch_size = tuple(map(int, axes.ours(configuration["patch_size"])))
    train.batch_size = int(configuration["batch_size"])
    config.update_from_flattened_dict(rotations(train.patch_size))
    pooled = {"batch_dice": bool(configuration.get("batch_dice"))}
    config.loss = (("dice", 1.0, pooled), ("cross_entropy", 1.0, {}))
    data.regions = regions
    if regions:
        filled = with_regions(config)
        config.loss, config.model.head = filled.loss, filled.model.head
    config.eval.average, config.eval.overlap = "logits", 0.5
    config.eval.temperature = None  # nothing is calibrated: there is no validation


def _classes(
    dataset: Mapping[str, Any],
) -> tuple[tuple[str, ...], tuple[Region, ...]]:
    """Return the names of the classes, the background's first, and the regions."""
    file = Path("dataset.json")
    names, label_map, stored = stated_classes(dataset["labels"], file)
    regions, notes = stated_regions(stored, label_map, dataset, file)
    wrong = [
        (value, index) for value, index in label_map if index not in (value, IGNORE)
    ]
    if wrong or (notes and not regions) or len(names) < 2:
        raise InputError(
            f"dataset.json: labels are {dict(dataset['labels'])}; expected the values "
            "0, 1, 2 and so on, and for regions the entry regions_class_order"
        )
    return names, regions
