"""Writes TFDS sets to disk as ArrayRecord, without TensorFlow."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PET_SIZES = ((20, 31), (17, 12), (33, 16), (8, 9), (25, 25))


@pytest.fixture(scope="session")
def store():
    """Give a function that writes a set and returns the folder of its version."""
    return _store


def _store(
    folder, *, name, features, splits, version="1.0.0", config=None, shards=None
):
    """Write ``{split: [(key, example), ...]}`` and return the folder of the version."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_builders import adhoc_builder

    class Stored(adhoc_builder.AdhocBuilder, skip_registration=True):
        # The method overridden here asks whether the examples are a tf.data.Dataset.
        def _split_generators(self, dl_manager):
            return {split: iter(rows) for split, rows in self._split_datasets.items()}

    tfds.disable_progress_bar()
    builder = Stored(
        name=name,
        version=version,
        config=config,
        features=tfds.features.FeaturesDict(features),
        split_datasets=splits,
        data_dir=folder,
    )
    builder.download_and_prepare(
        file_format="array_record",
        download_config=tfds.download.DownloadConfig(
            compute_stats=tfds.download.ComputeStatsMode.SKIP,
            try_download_gcs=False,
            num_shards=shards,
        ),
    )
    return Path(builder.data_dir)


@pytest.fixture(scope="session")
def pet_pictures():
    """Name, photograph and trimap of seven pictures; flat colours survive JPEG."""
    rng = np.random.default_rng(0)
    pictures = []
    for index in range(7):
        height, width = PET_SIZES[index % len(PET_SIZES)]
        image = np.full((height, width, 3), 40 + 20 * index, np.uint8)
        mask = rng.integers(1, 4, (height, width), dtype=np.uint8)
        pictures.append((f"Bengal_{index}", image, mask))
    return pictures


@pytest.fixture(scope="session")
def pets_dir(tmp_path_factory, store, pet_pictures):
    """Five training and two test pictures as oxford_iiit_pet 4.0.0 stores them."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    feature = tfds.features
    breeds = [f"breed_{index}" for index in range(37)]
    features = {
        "image": feature.Image(encoding_format="jpeg"),
        "label": feature.ClassLabel(names=breeds),
        "species": feature.ClassLabel(names=["Cat", "Dog"]),
        "file_name": feature.Text(),
        "segmentation_mask": feature.Image(shape=(None, None, 1), use_colormap=True),
        "head_bbox": feature.BBoxFeature(),
    }
    rows = [
        (
            name,
            {
                "image": Image.fromarray(image),
                "label": 5,
                "species": 0,
                "file_name": f"{name}.jpg",
                "segmentation_mask": Image.fromarray(mask),
                "head_bbox": feature.BBox(0.0, 0.0, 0.5, 1.0),
            },
        )
        for name, image, mask in pet_pictures
    ]
    # The set has pictures that are grey or carry an alpha channel.
    rows[1][1]["image"] = _as_file(Image.new("L", PET_SIZES[1][::-1], 60), "jpeg")
    rows[2][1]["image"] = _as_file(
        Image.new("RGBA", PET_SIZES[2][::-1], (80,) * 4), "png"
    )
    store(
        folder,
        name="oxford_iiit_pet",
        version="4.0.0",
        features=features,
        splits={"train": rows[:5], "test": rows[5:]},
    )
    return folder


def _as_file(image, encoding):
    buffer = io.BytesIO()
    image.save(buffer, format=encoding)
    buffer.seek(0)
    return buffer
