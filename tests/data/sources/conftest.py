"""TFDS sets written to disk for a test, as ArrayRecord and without TensorFlow."""

from pathlib import Path

import pytest


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
