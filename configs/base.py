"""Every key of a run, with its default. Other configs are this one plus differences.

A key whose comment starts with `may change` may differ when a run is resumed; any other
difference is refused with both values.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """Return the defaults: the embedded brain MRI and a small U-Net."""
    config = ConfigDict()
    config.name = "base"  # the default workdir is runs/<name>
    config.seed = 0  # of initial parameters, shuffling, crops and augmentation
    config.deterministic = True  # the same bits each time; on GPU it costs some speed
    config.init_from = ""  # workdir of another run to take the first weights from

    config.data = data = ConfigDict()
    data.source = "tfds"  # "tfds"; "folder": your own files; "path_or_tfds": by path
    data.name = "mni152_tissue"  # a TFDS data set: one of ours, or a prepared one
    data.data_dir = ""  # may change: where TFDS keeps its files; "" = TFDS's default
    data.train_split = "train"  # TFDS split, slicing such as "train[:90%]" allowed
    data.validation_split = "validation"  # chooses the best checkpoint
    data.test_split = "test"  # scored once, at the end
    data.image_key = "image"  # feature with the image
    data.label_key = "label"  # feature with the label of every pixel
    data.volume_key = "volume"  # feature that names a slice's volume; "" = pictures
    data.slice_index_key = "slice_index"  # feature with a slice's place in its volume
    data.spacing_key = "spacing"  # feature with mm a pixel and axis; "" = unknown
    data.group_key = ""  # feature with the patient; "" = each case is its own
    data.mean_key = ""  # feature with the mean of a slab's whole scan; "" = its own
    data.std_key = ""  # feature with the standard deviation, likewise
    data.path = ""  # may change: folder source: the folder with images and masks
    data.images = ""  # its folder of images; "" = found
    data.masks = ""  # its folder of masks; "" = found
    data.mask_suffix = ""  # of masks that lie beside the images, "_mask"; "" = found
    data.stack = False  # pictures in a patient's folder are slices of one volume
    data.known_spacing = ()  # mm on each axis of cases whose files say none
    data.tiff_axes = ""  # of TIFF files, such as "CYX"; "" = as the files say
    data.palette = ()  # colours (red, green, blue) of colour masks: their index counts
    data.palette_tolerance = 0.0  # largest difference of a channel that is forgiven
    data.group_regex = ""  # finds the patient in an id: "^(p\\d+)_"; "" = its folder
    data.splits = ""  # JSON or CSV file with the ids of each split; "" = drawn
    data.split_seed = 0  # of drawn splits; "seed" leaves them as they are
    data.fold = -1  # which of the folds validates; -1 = none, a share does
    data.folds = 5  # parts of a cross-validation
    data.test_fraction = 0.2  # share of the groups that is drawn for the test split
    data.validation_fraction = 0.2  # share of the groups that is drawn for validation
    data.dims = config_dict.placeholder(int)  # 2 or 3 axes; None = what suits the data
    data.label_map = ()  # ((stored value or (first, last), class), ...), -1 = ignored
    data.class_names = ("background", "foreground")  # class 0 first
    data.class_colors = ((0, 0, 0), (230, 57, 70))  # red, green, blue: one a class
    data.include_background = False  # count class 0 in overlap losses and mean scores
    data.slice_axis = 2  # RAS axis that a 2-D network sees a volume's slices of
    data.spacing = config_dict.FieldReference("median", object)  # mm; None = as stored
    data.size = config_dict.placeholder(tuple)  # resize pictures to it; None = as is
    data.crop_nonzero = True  # cut the empty border off
    data.intensity = "zscore"  # "zscore" (MR), "percentile" (CT), "full_range" (photos)
    data.foreground_oversampling = 1 / 3  # share of crops centred on a random class
    data.cache_gib = 4.0  # may change: memory for prepared cases
    data.num_threads = 2  # may change: threads that draw crops ahead
    data.prefetch_batches = 4  # may change: batches that they draw ahead

    config.model = model = ConfigDict()
    # None in this section leaves the preset's own value.
    model.name = "unet_small"  # a preset; "unet": features from the data
    model.features = config_dict.placeholder(tuple)  # a stage, fine to coarse
    model.convolutions_per_stage = config_dict.placeholder(object)  # int, or one each
    model.kernel_sizes = config_dict.placeholder(tuple)  # one a stage; None = 3
    model.strides = config_dict.placeholder(tuple)  # one between stages; None = 2
    model.clusters = config_dict.placeholder(int)  # of "wnet"; None = one a class
    model.base_features = 16  # of "unet": channels of its finest stage
    model.max_features = 256  # of "unet": channels that no stage exceeds
    model.block = config_dict.placeholder(str)  # "plain", "residual"
    model.downsample = config_dict.placeholder(str)  # "max_pool", "strided"
    model.decoder_convolutions = config_dict.placeholder(object)  # None = as encoder
    model.attention = config_dict.placeholder(bool)  # gates on the skips
    model.deep_supervision = config_dict.placeholder(int)  # coarser outputs with a loss
    model.dropout = config_dict.placeholder(object)  # share of channels; or one a stage
    model.padding = config_dict.placeholder(str)  # "SAME", "VALID" (smaller logits)
    model.norm = config_dict.placeholder(str)  # "instance", "group", "batch", "none"
    model.norm_groups = config_dict.placeholder(int)  # of group norm
    model.activation = config_dict.placeholder(str)  # "leaky_relu", "relu"
    model.upsample = config_dict.placeholder(str)  # "transposed", "resize"
    model.head = "softmax"  # "sigmoid": each class against the rest, bce and the like
    model.dtype = "float32"  # of the computation: "float32", "bfloat16"

    config.loss = (("dice", 1.0, {}), ("cross_entropy", 1.0, {}))  # name, weight, how

    config.augment = augment = ConfigDict()
    augment.enabled = True  # off: the crops as they are
    augment.flip_probability = 0.5  # of each axis by itself
    augment.spatial_axes_flip = (0, 1, 2)  # axes that may be mirrored; () for none
    augment.rotation_probability = 0.2  # about the centre
    augment.rotation_degrees_2d = (-180.0, 180.0)  # angle in pictures
    augment.rotation_degrees_3d = (-30.0, 30.0)  # angle about each axis of volumes
    augment.scaling_probability = 0.2  # about the centre
    augment.scaling_factor = (0.7, 1.4)  # above 1 things get smaller
    augment.elastic_probability = 0.2  # smooth random deformation
    augment.elastic_spacing = 24.0  # pixels between its control points
    augment.elastic_magnitude = (0.0, 0.25)  # largest shift as a share of the spacing
    augment.noise_probability = 0.1  # added normal noise
    augment.noise_std = (0.0, 0.1)  # in units of the normalised image
    augment.blur_probability = 0.2  # Gaussian
    augment.blur_channel_probability = 0.5  # of each channel of a blurred image
    augment.blur_sigma = (0.5, 1.0)  # pixels
    augment.brightness_probability = 0.15  # a factor on the values
    augment.brightness_factor = (0.75, 1.25)  # that factor
    augment.contrast_probability = 0.15  # a factor on the distance from the mean
    augment.contrast_factor = (0.75, 1.25)  # that factor
    augment.low_resolution_probability = 0.25  # a coarser sampling
    augment.low_resolution_channel_probability = 0.5  # of each channel of such an image
    augment.low_resolution_scale = (0.5, 1.0)  # coarse size as a share of the size
    augment.gamma_inverted_probability = 0.1  # a power on the negative image
    augment.gamma_inverted_exponent = (0.7, 1.5)  # that power
    augment.gamma_probability = 0.3  # a power on the image
    augment.gamma_exponent = (0.7, 1.5)  # that power

    config.train = train = ConfigDict()
    train.steps = 1000  # may change: updates of the parameters
    train.max_minutes = 0.0  # may change: end by the clock instead; 0 = by the steps
    train.memory_gib = 0.25  # activations of a step, where the data choose the patch
    train.max_patch = 256  # pixels that no axis of a chosen 2-D patch exceeds
    train.batch_size = 8  # crops an update, over all devices
    train.patch_size = (96, 96)  # pixels of a crop; its length makes the net 2-D or 3-D
    train.accumulation = 1  # parts that a device cuts its share of the batch into
    train.ema_decay = 0.0  # moving average of parameters, used for scores; 0 = off
    train.step_timeout = 600.0  # may change: seconds after which a step hangs; 0 = off
    train.skip_nonfinite = 0  # may change: steps with NaN or Inf left out before a stop
    train.early_stopping_patience = 0  # evaluations without a better Dice; 0 = off

    config.optimizer = optimizer = ConfigDict()
    optimizer.name = "adamw"  # "adamw", "sgd" (Nesterov)
    optimizer.learning_rate = 4e-3  # at the end of the warm-up
    optimizer.schedule = "cosine"  # "cosine", "polynomial", "constant"
    optimizer.warmup_steps = 50  # linear, from zero
    optimizer.final_fraction = 0.0  # last learning rate as a share of the peak
    optimizer.power = 0.9  # of the polynomial schedule
    optimizer.weight_decay = 1e-4  # norms and biases are spared
    optimizer.momentum = 0.99  # of sgd
    optimizer.gradient_clip = 1.0  # largest global norm; 0 = off

    config.eval = evaluation = ConfigDict()
    evaluation.every_steps = 250  # may change: steps between validations
    evaluation.train_images = 16  # may change: training images scored beside them
    evaluation.overlap = 0.5  # may change: of the windows of inference
    evaluation.validation_overlap = 0.0  # may change: between the steps: side by side
    evaluation.mirror = False  # may change: test: mean over mirrored images
    evaluation.postprocess = config_dict.placeholder(object)  # may change: or "auto"
    evaluation.window_batch = 8  # may change: windows in one call, fewer if large
    evaluation.metrics = (  # may change: names of docs/metrics.md; Dice, IoU always
        "dice",
        "iou",
        "precision",
        "recall",
        "volume_similarity",
        "hd95",
        "assd",
        "nsd",
        "ece",
    )
    evaluation.surface = "area"  # may change: "area" of elements, border "voxel"s
    evaluation.tolerance_mm = 1.0  # may change: of the surface Dice
    evaluation.tolerance_px = 1.0  # may change: the same where no spacing is known

    config.compare = compare = ConfigDict()
    compare.methods = ()  # may change: names of docs/classical.md; () = every one
    compare.w_net_steps = 1000  # may change: updates of the W-Net trained for it
    compare.parameters = ()  # may change: ((method, {name: value}), ...), not fitted

    config.log = log = ConfigDict()
    log.every_steps = 25  # may change: steps between lines of metrics.jsonl
    log.overlays = 4  # may change: test cases drawn at the end

    config.compilation_cache_dir = "~/.cache/unet_jax"  # may change: "" = none
    return config
