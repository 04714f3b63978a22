"""Segments the tissue of heads; learns from a folder of label maps, without a scan.

    python -m unet_jax.main --config=configs/synth.py --config.data.path=FOLDER

Every file of FOLDER is the label map of one head, with the numbers of FreeSurfer; those
of 501 and above are what surrounds the brain. Images are drawn from the maps, in the
training step, and those of validation and test once: their scores are of drawn images.
Score the run on a scan that has a label, or look at what it predicts. Other numbers
need another --config.data.label_map and --config.data.sub_labels.
"""

from ml_collections import ConfigDict

from unet_jax.configs import brain

_OTHER, _GREY, _WHITE = 1, 2, 3
_CLASSES = (
    (0, 0),
    *((one, _OTHER) for one in ((4, 5), (14, 15), 24, (30, 31), (43, 44))),
    *((one, _OTHER) for one in ((62, 63), 72, 85, (136, 137), (163, 164))),
    *((one, _GREY) for one in (3, 8, (10, 13), (17, 18), (26, 28), 42, 47)),
    *((one, _GREY) for one in ((49, 54), (58, 60), (1000, 1035), (2000, 2035))),
    # With brain stem, corpus callosum and lesions of the white matter.
    *((one, _WHITE) for one in (2, 7, 16, 25, 41, 46, 57, (77, 79), (251, 255))),
    ((501, 530), 0),
)
_SUB_LABELS = (
    # Ventricles; vessels, choroid plexus and optic chiasm; 0 is other fluid.
    *((one, -1) for one in ((4, 5), (14, 15), (43, 44), 72)),
    *((one, 1) for one in ((30, 31), (62, 63), 85, (136, 137), (163, 164))),
    # Cortex of the cerebellum; deep grey matter; 0 is the cerebral cortex.
    *((one, -1) for one in (8, 47)),
    *((one, 1) for one in ((10, 13), (17, 18), (26, 28), (49, 54), (58, 60))),
    # White matter of the cerebellum; brain stem; 0 is that of the cerebrum.
    *((7, -1), (46, -1), (16, 1)),
    # Soft tissue, skin, mucosa, vessels; bone, marrow, spinal cord, others; 0 is air.
    *((507, 1), (511, 2), (509, 3), (514, 4)),
    *((515, -1), (516, -2), (512, -3)),
    *((one, -4) for one in ((501, 506), 508, 510, 513, (517, 530))),
)


def get_config() -> ConfigDict:
    """Return the config."""
    config = brain.get_config()
    config.name = "synth"
    config.data.source = "folder"
    config.data.labels_only = True
    config.data.label_map = _CLASSES
    config.data.sub_labels = _SUB_LABELS
    config.data.mean_key = ""
    config.data.std_key = ""
    config.augment.synthesis_probability = 1.0
    config.augment.synthesis_like_real_probability = 0.0
    # Where the map shows what surrounds the brain, few images need invented shells.
    config.augment.synthesis_surroundings_probability = 0.1
    config.augment.elastic_probability = 0.2
    # To draw and to predict a volume takes as long as many steps.
    config.eval.every_steps = config.train.steps // 2
    config.eval.train_images = 4
    return config
