import numpy as np
import pytest

from tests.data.folder.folders import write_pixels
from unet_jax.configs import folder
from unet_jax.errors import InputError
from unet_jax.experiment.check import check_config
from unet_jax.experiment.data import (
    create_prepared_cases,
    fit_preprocessing,
    open_dataset,
)
from unet_jax.experiment.drawn_images import DrawnImages

DRAWN = {
    "data.labels_only": True,
    "augment.synthesis": True,
    "augment.synthesis_probability": 1.0,
    "augment.synthesis_like_real_probability": 0.0,
}


def _config(path, **changes):
    config = folder.get_config()
    config.data.path = str(path)
    config.update_from_flattened_dict({**DRAWN, **changes})
    return config


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Write label maps of a square with a bright middle and a dark ring outside."""
    path = tmp_path_factory.mktemp("maps")
    for number in range(5):
        label = np.zeros((40, 44), np.uint8)
        label[8:30, 9 : 30 + number] = 3
        label[10:28, 11 : 28 + number] = 1
        label[14:20, 15 : 20 + number] = 2
        write_pixels(path / f"{number}.png", label)
    return path


LABELS = {"data.label_map": ((0, 0), (1, 1), (2, 2), (3, 0))}


def _images(maps, **changes):
    dataset = open_dataset(_config(maps, **LABELS, **changes), None)
    sources = [dataset.source(split) for split in ("train", "validation", "test")]
    return {
        case.id: case
        for source in sources
        for case in map(source.__getitem__, range(len(source)))
    }


def test_a_case_has_the_same_image_whenever_it_is_drawn(maps):
    first, again, other = (
        _images(maps, **changes)
        for changes in ({}, {"seed": 7}, {"data.split_seed": 1})
    )
    assert first.keys() == again.keys() == other.keys()
    for name, case in first.items():
        assert case.image.dtype == np.uint8
        assert case.image.shape == (40, 44, 1)
        np.testing.assert_array_equal(case.image, again[name].image)
        np.testing.assert_array_equal(case.label, again[name].label)
        assert (case.image != other[name].image).any()
    drawn = [case.image[12:28, 12:28] for case in first.values()]
    assert len({image.tobytes() for image in drawn}) == len(drawn)


def test_few_drawn_images_are_kept_and_an_image_comes_back_the_same(maps, monkeypatch):
    monkeypatch.setattr("unet_jax.experiment.drawn_images._KEPT_BYTES", 40 * 44)
    source = open_dataset(_config(maps, **LABELS), None).source("train")
    before = [source[index].image for index in range(len(source))]
    assert len(source._kept) == 1
    for index, image in enumerate(before):
        np.testing.assert_array_equal(source[index].image, image)


def test_training_reads_sub_labels_and_not_the_drawn_image(maps, tmp_path):
    config = _config(
        maps,
        **LABELS,
        **{
            "data.class_names": ("background", "a", "b"),
            "data.slice_axis": 2,
            "data.crop_nonzero": True,
            "data.intensity": "zscore",
            "data.zero_outside": True,
            "train.patch_size": (16, 16),
        },
    )
    source = open_dataset(config, None).source("train")
    assert isinstance(source, DrawnImages)
    preprocessing = fit_preprocessing(config, source)
    prepared = create_prepared_cases(config, source, preprocessing, tmp_path)
    image, label = prepared.case(0)
    np.testing.assert_array_equal(np.unique(image), [0, 1])
    np.testing.assert_array_equal(np.unique(label[image[..., 0] == 1]), [0])
    config.augment.enabled = False
    fixed = create_prepared_cases(config, source, preprocessing, tmp_path)
    assert len(np.unique(fixed.case(0)[0])) > 50


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment.synthesis": False}, "found augment.synthesis=False.*"),
        ({"augment.synthesis_probability": 0.5}, "synthesis_probability=1.0"),
        ({"data.intensity": "percentile"}, "found data.intensity='percentile'"),
        ({"data.source": "tfds"}, "--config.data.source=folder"),
        ({"data.channels": ("_a", "_b")}, "found data.channels="),
        ({"data.sub_labels": ((1, 9),)}, "data.sub_labels: found"),
        ({"loss": (("soft_ncut", 1.0, {}),)}, "--config.augment.enabled=False"),
    ],
)
def test_settings_that_need_images_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        check_config(_config("folder", **changes))
