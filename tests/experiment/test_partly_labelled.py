import pytest

from unet_jax.configs import folder
from unet_jax.errors import InputError
from unet_jax.experiment.check import check_config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.source": "tfds"}, "a folder of files"),
        ({"loss": (("soft_ncut", 1.0, {}),)}, "they read no label"),
        ({"loss": (("cross_entropy", 1.0, {"label_smoothing": 0.1}),)}, "label_smooth"),
    ],
)
def test_what_does_not_go_with_labelled_classes_is_refused(changes, message):
    config = folder.get_config()
    config.data.labelled_classes = "some.csv"
    check_config(config)
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=f"data.labelled_classes: .*{message}"):
        check_config(config)
