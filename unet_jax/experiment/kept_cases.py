"""Opens ``data.prepared_dir``, which keeps prepared cases between runs."""

import pathlib

import jax
from ml_collections import ConfigDict

from unet_jax.data.case import Source, name_of
from unet_jax.data.case_store import CaseStore
from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import InputError
from unet_jax.losses.terms import reads_labels
from unet_jax.runtime.home import expanded


def kept_cases(
    config: ConfigDict, source: Source, preprocessing: Preprocessing, *, whole: bool
) -> CaseStore | None:
    """Open the prepared cases of earlier runs, and print what is there.

    Args:
        config: config of the run.
        source: training cases.
        preprocessing: preprocessing that prepares them.
        whole: whether a case is made of its files and the preprocessing alone.

    Returns:
        The cases; None where none are to be kept.

    Raises:
        InputError: these cases cannot be kept, or the folder is in a bucket.
    """
    folder = config.data.get("prepared_dir")  # not in earlier records
    if not folder:
        return None
    if "://" in folder:
        raise InputError(
            f"data.prepared_dir: found {folder}, expected a folder of this machine or "
            "of a mounted disk"
        )
    content = getattr(source, "content", None)
    if content is None or not whole:
        what = "predictions of data.previous_stage"
        if content is None:
            what = "images that are drawn from label maps"
        raise InputError(
            f"data.prepared_dir: {what} cannot be kept; leave it out: "
            "--config.data.prepared_dir="
        )
    store = CaseStore(
        pathlib.Path(expanded(folder)).resolve(),
        settings={
            "preprocessing": preprocessing.to_dict(),
            "classes": len(config.data.class_names),
            "labelled": reads_labels(config.loss),
        },
        contents=[content(index) for index in range(len(source))],
        names=[name_of(source, index) for index in range(len(source))],
        patch=tuple(config.train.patch_size),
    )
    if jax.process_index() == 0:
        print(store.report())
    return store
