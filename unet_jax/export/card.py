"""Writes the model card of a bundle, with the metadata that Hugging Face reads."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

_SHOWN = ("dice", "iou", "hd95", "hd95_px", "nsd", "ece")
"""Scores of the table, as far as a run has them."""


def model_card(
    *,
    name: str,
    data: Mapping[str, Any],
    scores: Mapping[str, Any] | None,
    split: str,
    bundle: Mapping[str, Any],
    files: Mapping[str, str],
    notes: Sequence[str],
) -> str:
    """Return MODEL_CARD.md: YAML metadata, then what the network is and is not.

    Args:
        name: name of the run.
        data: "name" of the data set, and the number of "train" cases.
        scores: content of test_metrics.json ("mean", "ci95", "per_class"); or None.
        split: which cases the scores are of, in words.
        bundle: content of bundle.json.
        files: what each file of the bundle is.
        notes: limits that the export found, a sentence each.
    """
    parts = [
        _metadata(name, data, scores),
        f"# {name}\n",
        f"Segments images into {', '.join(bundle['class_names'])}. Trained with "
        "unet_jax; this folder needs neither jax nor unet_jax.\n",
        "```sh\npip install numpy onnxruntime nibabel pillow"
        + "".join(f" {one}" for one in bundle["needs"] if one.startswith("sci"))
        + "\npython run.py image.nii.gz -o labels.nii.gz\n```\n",
        "## Files\n",
        *(f"- `{file}`: {what}" for file, what in files.items()),
        "\n## Data\n",
        f"{data['name']}; {data['train']} training cases. {_input(bundle)}\n",
        "## Scores\n",
        _table(scores, split),
        "\n## Limits\n",
        *(f"- {one}" for one in (*notes, *_limits(bundle))),
        "\n## Licence\n",
        "The programs of this folder have the licence of unet_jax, Apache-2.0. The run "
        "states no licence of the weights: that of the training data decides. Write it "
        "here, and into the metadata above, before you publish them.",
    ]
    return "\n".join(parts) + "\n"


def _metadata(
    name: str, data: Mapping[str, Any], scores: Mapping[str, Any] | None
) -> str:
    """Return the YAML between lines of dashes; JSON values are YAML too."""
    rows: dict[str, Any] = {
        "license": "other",
        "license_name": "not-stated",
        "license_link": "#licence",
        "library_name": "onnx",
        "pipeline_tag": "image-segmentation",
        "tags": ["image-segmentation", "semantic-segmentation", "onnx", "unet_jax"],
    }
    mean = _means(scores)
    if mean:
        metrics = [
            {"type": key, "name": key, "value": round(value, 4)}
            for key, value in mean.items()
        ]
        result = {
            "task": {"type": "image-segmentation"},
            "dataset": {"type": data["name"], "name": data["name"]},
            "metrics": metrics,
        }
        rows["model-index"] = [{"name": name, "results": [result]}]
    lines = (f"{key}: {json.dumps(value)}" for key, value in rows.items())
    return "\n".join(["---", *lines, "---\n"])


def _means(scores: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the mean scores of the table."""
    mean = {} if scores is None else scores["mean"]
    return {key: mean[key] for key in _SHOWN if _is_number(mean.get(key))}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _table(scores: Mapping[str, Any] | None, split: str) -> str:
    """Return the scores with their intervals."""
    keys = list(_means(scores))
    if scores is None or not keys:
        return "The run has no scores."

    def cells(values: Mapping[str, Any], interval: Mapping[str, Any]) -> str:
        shown = []
        for key in keys:
            value, ends = values.get(key), interval.get(key)
            text = f"{value:.4g}" if _is_number(value) else "-"
            if isinstance(ends, list | tuple) and all(map(_is_number, ends)):
                text += f" ({ends[0]:.4g} to {ends[1]:.4g})"
            shown.append(text)
        return " | ".join(shown)

    interval = scores.get("ci95") or {}
    rows = [
        f"| class | {' | '.join(keys)} |",
        f"| --- |{' --- |' * len(keys)}",
        f"| mean | {cells(scores['mean'], interval)} |",
        *(f"| {one} | {cells(v, {})} |" for one, v in scores["per_class"].items()),
    ]
    note = "In brackets: 95 % intervals, by resampling patients or groups."
    if not interval:
        why = scores.get("ci95_note", "no interval was computed")
        note = f"There is no interval: {why}."
    return f"Of {split}. {note}\n\n" + "\n".join(rows)


def _input(bundle: Mapping[str, Any]) -> str:
    """Describe the images that the network takes."""
    prep = bundle["members"][0]["preprocessing"]
    channels = f"{prep['channels']} channel{'s' * (prep['channels'] > 1)}"
    size = ", ".join(f"{step:g}" for step in prep["spacing"] or ())
    grid = f" resampled to {size} mm" if size else ""
    return f"Images of {channels}{grid}, {prep['network_dims']}-D windows."


def _limits(bundle: Mapping[str, Any]) -> list[str]:
    """Return what a user has to know."""
    if bundle["trust"] is None:
        trust = "Nothing tells whether an image is unlike those of training."
    else:
        trust = (
            "run.py warns where an image is unlike those of training; an image without "
            "a warning can be segmented badly too."
        )
    return [
        "No medical device: for research, and a person has to look at the labels.",
        trust,
        "Scores hold for images like those of the data above.",
    ]
