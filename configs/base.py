"""Every key of a run: its default, its meaning, its limits, and if it may change.

Other configs are this one plus differences. A run may be resumed with other values of
the keys marked ``may_change``; any other difference is refused with both values. Runs
that differ only in ``seed`` and in keys with ``changes_scores=False`` are compared as
one method.
"""

from ml_collections import ConfigDict

from unet_jax.augment.policy import augmentation_keys
from unet_jax.config_key import Key, create_config
from unet_jax.metrics.defaults import DEFAULT_METRICS
from unet_jax.nnunet.stages import PRESETS

KEYS = {
    "name": Key(
        "base",
        "name of the run; the default workdir is runs/<name>",
        changes_scores=False,
    ),
    "seed": Key(
        0,
        "seed of initial parameters, shuffling, crops and augmentation",
        low=0,
        high=2**31 - 1,
    ),
    "deterministic": Key(True, "give the same bits each time; costs some speed on GPU"),
    "init_from": Key(
        "", "workdir of another run whose weights come first; '' for none"
    ),
    # ---- data ------------------------------------------------------------------------
    "data.source": Key(
        "tfds",
        "where cases come from; 'path_or_tfds' reads data.path if it is set",
        choices=("tfds", "folder", "path_or_tfds"),
    ),
    "data.name": Key(
        "mni152_tissue", "name of a TFDS data set, ours or a prepared one"
    ),
    "data.data_dir": Key(
        "",
        "folder of TFDS sets; '' for its default",
        may_change=True,
        changes_scores=False,
    ),
    "data.train_split": Key("train", "TFDS split of training; may be 'train[:90%]'"),
    "data.validation_split": Key("validation", "TFDS split that selects a checkpoint"),
    "data.test_split": Key("test", "TFDS split that is scored once, at the end"),
    "data.image_key": Key("image", "TFDS feature with the image"),
    "data.label_key": Key("label", "TFDS feature with the label of every pixel"),
    "data.volume_key": Key("volume", "feature with a slice's volume; '' for pictures"),
    "data.slice_index_key": Key("slice_index", "feature with a slice's place in it"),
    "data.spacing_key": Key("spacing", "feature with mm on each axis; '' if unknown"),
    "data.group_key": Key("", "feature with the patient; '' if each case is its own"),
    "data.mean_key": Key("", "feature with the mean of a slab's scan; '' for its own"),
    "data.std_key": Key("", "feature with the standard deviation of a slab's scan"),
    "data.path": Key(
        "", "folder with images and masks", may_change=True, changes_scores=False
    ),
    "data.images": Key("", "subfolder of images; '' to find it"),
    "data.masks": Key("", "subfolder of masks; '' to find it"),
    "data.mask_suffix": Key(
        "", "suffix of masks beside images, '_mask'; '' to find it"
    ),
    "data.join_masks": Key(False, "join the masks of an image into one label"),
    "data.channels": Key(
        (), "endings of the files of an image's channels, ('_t1', '_t2')"
    ),
    "data.stack": Key(False, "read the pictures of a patient's folder as one volume"),
    "data.known_spacing": Key((), "mm on each axis, for files without a spacing"),
    "data.tiff_axes": Key("", "axes of TIFF files such as 'CYX'; '' as the files say"),
    "data.orientation": Key(
        "",
        "EXIF or TIFF orientation: 'upright' or as 'stored', then volumes are not "
        "turned to RAS either; '' asks where unclear",
        choices=("", "upright", "stored"),
    ),
    "data.palette": Key((), "colours (red, green, blue) of colour masks, by class"),
    "data.palette_tolerance": Key(
        0.0, "accepted difference of a colour channel from the palette", low=0, high=255
    ),
    "data.palette_indices": Key(
        False, "read palette masks by index where their colours differ"
    ),
    "data.group_regex": Key(
        "", r"regex for the patient in an id, '^(p\d+)_'; '' for its folder"
    ),
    "data.splits": Key("", "JSON or CSV file with the ids of each split; '' to draw"),
    "data.allow_duplicates": Key(
        False, "accept an image in two splits, as some published splits have it"
    ),
    "data.split_seed": Key(
        0, "seed of drawn splits; 'seed' does not change them", low=0, high=2**31 - 1
    ),
    "data.fold": Key(-1, "fold that validates; -1 for a fraction", low=-1, high=999),
    "data.folds": Key(
        None,
        "number of folds; None for 5, or fewer where there are fewer groups",
        low=2,
        high=1000,
        kind=int,
    ),
    "data.test_fraction": Key(0.2, "fraction of groups to test on", low=0, high=0.9),
    "data.validation_fraction": Key(
        0.2, "fraction of groups to validate on", low=0.001, high=0.9
    ),
    "data.calibration_fraction": Key(
        0.5,
        "fraction of the validation groups held out for eval.risk, where that is set",
        low=0.001,
        high=0.99,
    ),
    "data.dims": Key(
        None, "2-D or 3-D network; None for what suits the data", 2, 3, kind=int
    ),
    "data.labels_only": Key(
        False, "read a folder of label maps without images, which are drawn"
    ),
    "data.sub_labels": Key(
        (),
        "((stored value or (first, last), number), ...): parts of a class that differ "
        "in drawn images, -1 to 1, and 0 for the others; -4 to 4 beside class 0, where "
        "0 is air",
    ),
    "data.label_map": Key(
        (), "((stored value or (first, last), class), ...); class -1 is ignored"
    ),
    "data.class_names": Key(
        ("background", "foreground"), "class names, class 0 first", from_data=True
    ),
    "data.segments": Key(
        (),
        "names of the segments of DICOM-SEG or RTSTRUCT masks that are classes 1, 2, "
        "...; others are left out; () for all",
    ),
    "data.labelled_classes": Key(
        "",
        "CSV file (case,class), or pairs of a case and its classes, for the cases in "
        "which not every class was labelled; '' for none (docs/data.md)",
        kind=object,
    ),
    "data.regions": Key(
        None,
        "(name, classes, class to write) of each region with a sigmoid of its own, in "
        "the order of writing; None as dataset.json says, () for classes",
        kind=object,
    ),
    "data.class_colors": Key(
        ((0, 0, 0), (230, 57, 70)), "(red, green, blue) of each class", from_data=True
    ),
    "data.include_background": Key(
        False, "count class 0 in overlap losses and in mean scores"
    ),
    "data.slice_axis": Key(
        2, "RAS axis along which slices are cut", low=0, high=2, from_data=True
    ),
    "data.adjacent_slices": Key(
        0,
        "slices on each side whose channels a 2-D network of volumes sees too",
        low=0,
        high=32,
    ),
    "data.spacing": Key("median", "mm to resample to; None as stored", kind=object),
    "data.size": Key(None, "pixels to resize pictures to; None as stored", kind=tuple),
    "data.crop_nonzero": Key(
        True,
        "remove the empty border",
        from_data=True,
    ),
    "data.intensity": Key(
        "zscore",
        "normalisation, 'zscore', 'percentile' or 'full_range' for MR, CT and "
        "photographs; or a tuple with one for each channel (docs/data.md)",
        from_data=True,
        kind=object,
    ),
    "data.resampling": Key(
        "linear",
        "how images are resampled: 'linear', or 'nnunet' for cubic splines",
        choices=("linear", "nnunet"),
    ),
    "data.zero_outside": Key(
        False,
        "leave the empty part of an image at zero, 'zscore' scales the rest",
        from_data=True,
    ),
    "data.foreground_oversampling": Key(
        1 / 3, "fraction of crops centred on a random class", low=0, high=1
    ),
    "data.cache_gib": Key(
        4.0, "GiB for cases in memory", low=0, may_change=True, changes_scores=False
    ),
    "data.prepared_dir": Key(
        "",
        "folder that keeps prepared training cases between runs; '' for none",
        may_change=True,
        changes_scores=False,
    ),
    "data.num_threads": Key(
        2, "threads that draw crops", low=0, may_change=True, changes_scores=False
    ),
    "data.prefetch_batches": Key(
        4, "batches drawn ahead", low=1, may_change=True, changes_scores=False
    ),
    "data.previous_stage": Key(
        "",
        "workdir of a finished run, or of a cross-validation, whose predictions are "
        "one-hot channels: the first stage of a cascade",
    ),
    # ---- model -----------------------------------------------------------------------
    # config.model.options has the options of the network: fields such as features.
    "model.name": Key(
        "unet_small",
        "row of models/presets.py ('unet' takes its features from the data), or "
        "'package.module:function' of your own",
    ),
    "model.clusters": Key(None, "clusters of 'wnet'", low=2, high=65536, kind=int),
    "model.base_features": Key(16, "channels of the finest stage of 'unet'", low=1),
    "model.max_features": Key(256, "largest number of channels of 'unet'", low=1),
    "model.head": Key(
        "softmax",
        "'softmax' for exclusive classes, 'sigmoid' for each class against the rest",
        choices=("softmax", "sigmoid"),
    ),
    "model.dtype": Key("float32", "dtype of the computation; or 'bfloat16'"),
    "model.plan": Key(
        "",
        "planner of nnU-Net that chooses spacing, patch, batch and the network 'unet'; "
        "'' for our own rules",
        choices=("", *PRESETS),
    ),
    # ---- loss, augmentation ----------------------------------------------------------
    "loss": Key(
        (("dice", 1.0, {}), ("cross_entropy", 1.0, {})),
        "(name, weight, parameters) of each summand, see docs/losses.md",
    ),
    "augment.enabled": Key(True, "off: the crops as they are"),
    # AUGMENTATIONS in unet_jax/augment/policy.py lists the augmentations. The class of
    # each has default, meaning and limits of its keys: ``probability`` of ``Rotation``
    # is augment.rotation_probability, ``axes`` of ``Flip`` is augment.flip_axes.
    **augmentation_keys(
        from_data=("flip_axes", "rotation_degrees_2d", "rotation_degrees_3d")
    ),
    "augment.synthesis": Key(
        False, "draw images from label maps, in a fraction of the examples"
    ),
    "augment.previous_operator_probability": Key(
        0.4,
        "fraction of crops in which classes of the first stage grow or shrink",
        low=0,
        high=1,
    ),
    "augment.previous_removal_probability": Key(
        0.2,
        "fraction of crops in which classes of the first stage lose a component",
        low=0,
        high=1,
    ),
    "augment.extra": Key(
        (), "your own, applied last: (('package.module:function', {options}), ...)"
    ),
    # ---- training --------------------------------------------------------------------
    "train.steps": Key(1000, "updates of the parameters", low=1, may_change=True),
    "train.max_minutes": Key(
        0.0,
        "minutes of start, training, validation, over all resumes; 0 for train.steps",
        low=0,
        may_change=True,
    ),
    "train.memory_gib": Key(
        None,
        "GiB of device memory for which patch, network and batch are chosen from data; "
        "None for 0.25 on a CPU, and on an accelerator its class: 8, 16, 32 or 80",
        low=0.001,
        kind=float,
    ),
    "train.max_patch": Key(256, "largest axis of a 2-D patch chosen from data", low=8),
    "train.batch_size": Key(
        8, "crops of an update, over all devices", low=1, from_data=True
    ),
    "train.patch_size": Key(
        (96, 96), "pixels of a crop; two axes or three", from_data=True
    ),
    "train.accumulation": Key(1, "parts of a device's batch, one after another", low=1),
    "train.freeze": Key(
        (), "parts of the network that do not learn, such as ('encoder',)"
    ),
    "train.ema_decay": Key(
        0.0,
        "decay of the averages, of parameters and batch norm's statistics, that are "
        "scored; 0 for off",
        low=0,
        high=0.999999,
    ),
    "train.step_timeout": Key(
        600.0,
        "seconds after which a step counts as hung; 0 for off",
        may_change=True,
        changes_scores=False,
    ),
    "train.skip_nonfinite": Key(
        0, "steps with NaN or Inf to skip before the run stops", low=0, may_change=True
    ),
    "train.early_stopping_patience": Key(
        0, "validations without a better Dice before the end; 0 for off", low=0
    ),
    # ---- optimizer -------------------------------------------------------------------
    "optimizer.name": Key("adamw", "'adamw', 'muon' or 'sgd' (Nesterov)"),
    "optimizer.learning_rate": Key(4e-3, "learning rate after the warm-up", low=0),
    "optimizer.schedule": Key("cosine", "'cosine', 'polynomial' or 'constant'"),
    "optimizer.warmup_steps": Key(50, "steps of the linear warm-up from zero"),
    "optimizer.final_fraction": Key(
        0.0, "last learning rate as a fraction of the peak", low=0, high=1
    ),
    "optimizer.power": Key(0.9, "exponent of the polynomial schedule", low=0),
    "optimizer.weight_decay": Key(1e-4, "weight decay; not of norms and biases", low=0),
    "optimizer.momentum": Key(0.99, "momentum of sgd", low=0, high=0.999999),
    "optimizer.gradient_clip": Key(1.0, "largest global norm; 0 for off", low=0),
    "optimizer.rate_factors": Key(
        (), "factors of the learning rate of parts, such as (('encoder', 0.1),)"
    ),
    # ---- evaluation ------------------------------------------------------------------
    "eval.every_steps": Key(250, "steps between validations", low=1, may_change=True),
    "eval.choose": Key(
        "best",
        "checkpoint that is scored: the best on validation, or the last",
        choices=("best", "last"),
    ),
    "eval.train_images": Key(
        16, "training images scored at each validation", low=1, may_change=True
    ),
    "eval.overlap": Key(0.5, "overlap of windows", low=0, high=0.99, may_change=True),
    "eval.validation_overlap": Key(
        0.0, "overlap of windows at validations", low=0, high=0.99, may_change=True
    ),
    "eval.mirror": Key(
        False, "average predictions over mirrored images", may_change=True
    ),
    "eval.postprocess": Key(
        None,
        "steps such as (('largest_component', (1, 2), 2.0), ('min_size', 1, 20)), or "
        "'auto'",
        may_change=True,
        kind=object,
    ),
    "eval.temperature": Key(
        "fit",
        "temperature of probabilities: 'fit' on validation, a number, None for off",
        may_change=True,
        kind=object,
    ),
    "eval.risk": Key(
        None,
        "class that must not be missed and the largest fraction that may be, such as "
        "('lesion', 0.1); part of validation then chooses a threshold (docs/trust.md)",
        may_change=True,
        kind=object,
    ),
    "eval.distance": Key(
        True,
        "fit how far a new image is from training (docs/trust.md)",
        may_change=True,
        changes_scores=False,
    ),
    "eval.average": Key(
        "probabilities",
        "what windows and mirrored images are averaged by; 'logits' with the weights "
        "and borders of nnU-Net",
        choices=("probabilities", "logits"),
        may_change=True,
    ),
    "eval.window_batch": Key(
        8, "windows in one call of the network; fewer if large", low=1, may_change=True
    ),
    "eval.metrics": Key(
        DEFAULT_METRICS,
        "metrics by name (docs/metrics.md); Dice and IoU are always there",
        may_change=True,
    ),
    "eval.surface": Key(
        "area",
        "surfaces by the area of their elements, or by border voxels",
        choices=("area", "voxel"),
        may_change=True,
    ),
    "eval.tolerance_mm": Key(1.0, "mm of surface Dice", low=0, may_change=True),
    "eval.tolerance_px": Key(
        1.0, "pixels of surface Dice, without a spacing", low=0, may_change=True
    ),
    # ---- comparison, logs, cache -----------------------------------------------------
    "compare.methods": Key(
        (),
        "methods by name (docs/classical.md); () for all",
        may_change=True,
        changes_scores=False,
    ),
    "compare.w_net_steps": Key(
        1000, "updates of the W-Net", low=1, may_change=True, changes_scores=False
    ),
    "compare.parameters": Key(
        (),
        "((method, {name: value}), ...) that are not fitted",
        may_change=True,
        changes_scores=False,
    ),
    "log.every_steps": Key(
        None,
        "steps between lines of metrics.jsonl; None for 25, or fewer in a short run",
        low=1,
        may_change=True,
        changes_scores=False,
        kind=int,
    ),
    "log.overlays": Key(
        4,
        "test cases drawn at the end: worst, best, median, then further bad ones",
        low=0,
        may_change=True,
        changes_scores=False,
    ),
    "compilation_cache_dir": Key(
        "~/.cache/unet_jax",
        "folder of compiled programs; '' for none",
        may_change=True,
        changes_scores=False,
    ),
}
"""Every key by its dotted name."""


def get_config() -> ConfigDict:
    """Return the defaults: the embedded brain MRI and a small U-Net."""
    config = create_config(KEYS)
    config.model.options = ConfigDict()
    return config
