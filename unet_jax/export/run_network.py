"""Runs a network over the windows of an image, for run.py beside this file."""

import itertools
import math
import sys

import numpy as np
from run_grids import needed, prepare, resized


def starts_of(size, window, overlap, multiple=1, whole=True):
    """Return where the windows along one axis start."""
    last = max(0, math.ceil((size - window) / multiple))
    step = max(1.0, window * (1 - overlap) / multiple)
    count = math.ceil(last / (math.floor(step) if whole else step)) + 1
    if count == 1:
        return (0,)
    return tuple(round(i * last / (count - 1)) * multiple for i in range(count))


def with_neighbours(image, axis, count):
    """Give slices their neighbours as channels."""
    places, size = np.arange(image.shape[axis]), image.shape[axis]
    shifted = [
        image.take(np.clip(places + offset, 0, size - 1), axis)
        for offset in range(-count, count + 1)
    ]
    return np.concatenate(shifted, axis=-1)


def blending(starts, window, nnunet):
    """Return Gaussian weights of a window, and their sums over all windows."""
    importance = weights = np.ones((), np.float64)
    for size, ats in zip(window, starts, strict=True):
        middle = size // 2 if nnunet else (size - 1) / 2
        line = np.exp(-0.5 * ((np.arange(size) - middle) / (0.125 * size)) ** 2)
        line /= line.max()
        summed = np.zeros(ats[-1] + size)
        for at in ats:
            summed[at : at + size] += line
        importance = np.multiply.outer(importance, line)
        weights = np.multiply.outer(weights, summed)
    return importance.astype("f4")[..., None], weights.astype("f4")[..., None]


def sample_windows(image, window, count):
    """Cut windows that tell how far an image is from those of training."""
    axes = [
        starts_of(max(size, wanted), wanted, 0.0)
        for size, wanted in zip(image.shape, window, strict=False)
    ]
    places, found = list(itertools.product(*axes)), []
    order = np.random.default_rng(0).permutation(len(places))[: 4 * count]
    for index in order:
        region = tuple(
            slice(at, at + n) for at, n in zip(places[index], window, strict=False)
        )
        part = image[region]
        missing = [(0, n - size) for n, size in zip(window, part.shape, strict=False)]
        found.append(np.pad(part, [*missing, (0, 0)], mode="edge"))
    kept = [one for one in found if one.min() < one.max()] or found
    return np.stack(kept[:count])


def intensity_statistics(windows):
    """Describe the intensities of windows, channel by channel."""
    count, channels = windows.shape[0], windows.shape[-1]
    windows = windows.astype(np.float64)
    flat = windows.reshape(count, -1, channels)
    mean, std = flat.mean(axis=1), flat.std(axis=1)
    cubes = ((flat - mean[:, None]) ** 3).mean(axis=1)
    skewness = cubes / np.maximum(std, 1e-6) ** 3
    axes = tuple(range(1, windows.ndim - 1))
    steps = [
        np.abs(np.diff(windows, axis=axis)).mean(axis=axes)
        for axis in axes
        if windows.shape[axis] > 1
    ]
    parts = [
        mean,
        std,
        np.sign(skewness) * np.log1p(np.abs(skewness)),
        *np.percentile(flat, (5, 25, 50, 75, 95), axis=1),
        (flat == flat.min(axis=1, keepdims=True)).mean(axis=1),
        np.mean(steps, axis=0),
    ]
    return np.concatenate(parts, axis=-1)


def distances(rows, reference):
    """Return the distance of features and of intensities; 1 is the limit."""
    found = {}
    for part, values in rows.items():
        mean, white, limit = (
            reference[f"{part}.{name}"] for name in ("mean", "whitening", "limit")
        )
        away = (values.astype(np.float64) - mean) @ white
        found[part] = float(np.linalg.norm(away, axis=-1).mean() / limit)
    return max(found["coarse"], found["fine"]), found["intensities"]


def probabilities(logits, head):
    """Return the probabilities of all classes."""
    if head == "softmax":
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)
    others = 0.5 * (1 + np.tanh(logits[..., 1:] / 2))
    return np.concatenate([1 - others.max(-1, keepdims=True), others], axis=-1)


class Network:
    """A network of the bundle with its preprocessing."""

    def __init__(self, member, folder):
        """Load the network."""
        options = needed("onnxruntime", "onnxruntime").SessionOptions()
        options.log_severity_level = 3
        self.session = needed("onnxruntime", "onnxruntime").InferenceSession(
            str(folder / member["model"]), options, providers=["CPUExecutionProvider"]
        )
        self.member, self.prep = member, member["preprocessing"]

    def stack_axis(self, axes):
        """Return the axis of slices; None where the network takes all axes."""
        least = self.prep["network_dims"] + (self.prep["adjacent_slices"] > 0)
        if axes < least:
            sys.exit(
                f"run.py: found an image of {axes} axes; expected {least}, as in "
                "training; give a NIfTI volume"
            )
        return self.prep["slice_axis"] if axes > self.prep["network_dims"] else None

    def votes(self, windows):
        """Return scores of windows: the mean over mirrored ones."""
        total, flips = 0.0, self.member["mirror_axes"]
        for count in range(len(flips) + 1):
            for chosen in itertools.combinations(flips, count):
                axes = [1 + axis for axis in chosen]
                flipped = np.ascontiguousarray(np.flip(windows, axes), np.float32)
                scores = self.session.run(["logits"], {"image": flipped})[0]
                if self.member["average"] == "probabilities":
                    scores = probabilities(scores, self.member["head"])
                total = total + np.flip(scores, axes)
        return total / np.float32(2 ** len(flips))

    def classes(self, scores):
        """Sum the channels of each class."""
        groups = self.member["groups"]
        if groups is None:
            return scores
        return np.stack([scores[..., group].sum(-1) for group in groups], axis=-1)

    def blended(self, image):
        """Return the scores (*grid, channels) of a prepared image."""
        member, stack = self.member, self.stack_axis(image.ndim - 1)
        window, margin, multiple = (
            list(member[name]) for name in ("window", "margin", "multiple")
        )
        if stack is not None:
            for sizes, single in ((window, 1), (margin, 0), (multiple, 1)):
                sizes.insert(stack, single)
        nnunet, shape = member["average"] == "logits", image.shape[:-1]
        starts = [
            starts_of(size, extent, member["overlap"], step, not nnunet)
            for size, extent, step in zip(shape, window, multiple, strict=False)
        ]
        extents = [one[-1] + size for one, size in zip(starts, window, strict=False)]
        missing = [
            max(0, one - size) for one, size in zip(extents, shape, strict=False)
        ]
        before = [0] * len(shape)
        if any(margin):
            pads = [
                (lost, lost + more) for lost, more in zip(margin, missing, strict=False)
            ]
            image = np.pad(image, [*pads, (0, 0)], mode="reflect")
        elif any(missing):
            before = [more // 2 if nnunet else 0 for more in missing]
            pads = [
                (first, more - first)
                for first, more in zip(before, missing, strict=False)
            ]
            image = np.pad(image, [*pads, (0, 0)])
        if stack is not None:
            image = with_neighbours(image, stack, self.prep["adjacent_slices"])
        importance, weights = blending(starts, window, nnunet)
        total = None
        places = list(itertools.product(*starts))
        for first in range(0, len(places), member["batch"]):
            batch = places[first : first + member["batch"]]
            windows = np.stack(
                [
                    image[
                        tuple(
                            slice(at, at + n + 2 * lost)
                            for at, n, lost in zip(p, window, margin, strict=False)
                        )
                    ]
                    for p in batch
                ]
            )
            if stack is not None:
                windows = windows.squeeze(1 + stack)
            for place, score in zip(batch, self.votes(windows), strict=False):
                if total is None:
                    total = np.zeros((*extents, score.shape[-1]), np.float32)
                score = score if stack is None else np.expand_dims(score, stack)
                region = tuple(
                    slice(at, at + n) for at, n in zip(place, window, strict=False)
                )
                total[region] += importance * score
        total /= weights
        return total[
            tuple(slice(at, at + n) for at, n in zip(before, shape, strict=False))
        ]

    def scores(self, image, spacing):
        """Return probabilities (*spatial, classes) on the grid of the image."""
        prepared, box, coarse = prepare(image, spacing, self.prep)
        made = self.blended(prepared)
        if self.member["average"] == "probabilities":
            made = self.classes(made)
        for axis, (start, stop) in enumerate(box):
            made = resized(made, axis, stop - start, nearest=axis == coarse)
        if self.member["average"] == "logits":
            made = self.classes(probabilities(made, self.member["head"]))
        whole = np.zeros((*image.shape[:-1], made.shape[-1]), np.float32)
        whole[..., 0] = 1
        whole[tuple(slice(*ends) for ends in box)] = made
        return whole

    def distance(self, image, spacing, trust, folder):
        """Return how far an image is from training: features and intensities."""
        prepared, _, _ = prepare(image, spacing, self.prep)
        axis, window = self.stack_axis(prepared.ndim - 1), list(trust["window"])
        count = self.prep["adjacent_slices"]
        if axis is not None:
            window.insert(axis, 1)
            prepared = with_neighbours(prepared, axis, count)
        windows = sample_windows(prepared, window, trust["windows"])
        windows = windows if axis is None else windows.squeeze(1 + axis)
        rows, own = {"coarse": [], "fine": []}, self.prep["channels"]
        for one in windows:
            made = self.session.run(["coarse", "fine"], {"image": one[None]})
            rows["coarse"].append(made[0])
            rows["fine"].append(made[1])
        rows = {name: np.concatenate(found) for name, found in rows.items()}
        middle = windows[..., count * own : (count + 1) * own]
        rows["intensities"] = intensity_statistics(middle)
        with np.load(folder / trust["reference"], allow_pickle=False) as reference:
            return distances(rows, reference)
