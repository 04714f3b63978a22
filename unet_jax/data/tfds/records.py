"""Reads the records of a TFDS split by index, without TensorFlow."""

import functools
import hashlib
import shlex
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any

from unet_jax.data.tfds.prepare import OWN_SETS, prepare
from unet_jax.errors import InputError

_FINGERPRINT_RECORDS = 256

Features = tuple[Any, dict[str, Any]]
"""Some features of a set, and the decoders that leave pictures encoded."""


class TfdsRecords:
    """Gives random access to the records of a split; errors name file and fix."""

    def __init__(self, name: str, split: str, *, data_dir: str | Path | None) -> None:
        """Open the set and read one record of every file."""
        self.where = f"data set {name!r}, split {split!r}"
        self._split = split
        self._directory = prepare(name, data_dir)
        # A truncated file fails at its first record: report it now, not in an hour.
        for first in accumulate((part.take for part in self._parts[:-1]), initial=0):
            self._read(first)

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._source)

    @property
    def features(self) -> Any:
        """The features of the set, by name."""
        return self._builder.info.features

    def pick(self, keys: Iterable[str | None]) -> Features:
        """Choose the features that ``example`` decodes.

        Pictures stay encoded: TFDS decodes them with OpenCV if it is installed, else
        with Pillow, and the two give different pixels of the same JPEG.
        """
        import tensorflow_datasets as tfds

        picked = {key: self.features[key] for key in keys if key is not None}
        skipped = {
            key: tfds.decode.SkipDecoding()
            for key, feature in picked.items()
            if isinstance(feature, tfds.features.Image)
        }
        return tfds.features.FeaturesDict(picked), skipped

    def example(self, index: int, features: Features) -> dict[str, Any]:
        """Read one record and decode the chosen features of it.

        Returns:
            One value per feature: arrays, numbers, and bytes for texts and pictures.

        Raises:
            InputError: the record cannot be read or does not have these features.
        """
        picked, decoders = features
        raw = self._read(index)
        try:
            return picked.deserialize_example_np(raw, decoders=decoders)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            path, place = self._place(index)
            raise InputError(
                f"{path}: record {place} does not have the features of features.json "
                f"({_one_line(error)}); {self._fix}"
            ) from error

    def record_id(self, index: int) -> str:
        """Name a record by split, file and position, equal in every part of a split."""
        from tensorflow_datasets.core import naming

        path, place = self._place(index)
        file = naming.FilenameInfo.from_str(path.name)
        return f"{file.split}-{file.shard_index}-{place}"

    def fingerprint(self) -> dict[str, Any]:
        """Describe the data for ``config.json``; equal for equal content.

        Returns:
            Name, version, split, the number of records in it and in every split, and a
            SHA-256 of its records (of 256 records, evenly spread, if it has more).
        """
        from tensorflow_datasets.proto import tf_example_pb2

        count = min(len(self), _FINGERPRINT_RECORDS)
        digest = hashlib.sha256()
        for place in range(count):
            raw = self._read(place * len(self) // count)
            # The order of features in a record differs between builds.
            example = tf_example_pb2.Example.FromString(raw)
            digest.update(example.SerializeToString(deterministic=True))
        info = self._builder.info
        return {
            "name": info.full_name.rpartition("/")[0],
            "version": str(info.version),
            "split": self._split,
            "records": len(self),
            "splits": {key: part.num_examples for key, part in info.splits.items()},
            "sha256": digest.hexdigest(),
        }

    @property
    def _fix(self) -> str:
        """How to fix a folder with a damaged file."""
        if self._directory.parent.name in OWN_SETS:
            return f"move {self._directory} away: the next run builds it again"
        return f"move {self._directory} away; prepare the set again by `tfds build`"

    @functools.cached_property
    def _builder(self) -> Any:
        """The set on disk; the code that made it is not needed."""
        import tensorflow_datasets as tfds
        from google.protobuf.json_format import ParseError

        try:
            return tfds.builder_from_directory(self._directory)
        except (OSError, ValueError, KeyError, ParseError) as error:
            raise InputError(
                f"{self._directory}: dataset_info.json or features.json is missing or "
                f"damaged ({_one_line(error)}); {self._fix}"
            ) from error

    @functools.cached_property
    def _source(self) -> Any:
        """The serialised records of the split, by index."""
        import tensorflow_datasets as tfds

        info = self._builder.info
        formats = {file_format.value for file_format in info.available_file_formats()}
        if "array_record" not in formats:
            raise InputError(
                f"{self._directory}: stored as {', '.join(sorted(formats))}, expected "
                "array_record (random access); run `tfds convert_format "
                f"--dataset_version_dir={shlex.quote(str(self._directory))} "
                "--out_file_format=array_record` once (needs TensorFlow)"
            )
        splits = ", ".join(
            f"{key} ({s.num_examples})" for key, s in info.splits.items()
        )
        try:
            if not info.splits[self._split].num_examples:
                raise ValueError("it has no records")
            return self._builder.as_data_source(
                self._split,
                deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
                file_format="array_record",
            )
        except (ValueError, KeyError) as error:
            raise InputError(
                f"{self.where}: cannot be used ({_one_line(error)}); expected one of "
                f"{splits}, or a part such as 'train[:90%]'"
            ) from error

    @functools.cached_property
    def _parts(self) -> list[Any]:
        """The files of the split, and the records of each that belong to it."""
        len(self._source)  # raises if the split does not exist
        return self._builder.info.splits[self._split].file_instructions

    def _place(self, index: int) -> tuple[Path, int]:
        """Find the file of a record, and its position in that file."""
        for part in self._parts:
            if index < part.take:
                return Path(part.filename), part.skip + index
            index -= part.take
        raise IndexError(f"record {index} past the end of {self.where}")

    def _read(self, index: int) -> bytes:
        """Read one serialised record."""
        try:
            return self._source[index]
        except (RuntimeError, OSError, IndexError) as error:
            path, place = self._place(index)
            raise InputError(
                f"{path}: record {place} cannot be read; the file is missing, cut "
                f"short or corrupt ({_one_line(error)}); {self._fix}"
            ) from error


def _one_line(error: Exception) -> str:
    """Return the first line of a message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
