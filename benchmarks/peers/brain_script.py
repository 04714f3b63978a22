"""The main job as a plain PyTorch script: one file, one loop.

    python -m benchmarks.peers.brain_script --data=given.npz --log=log.jsonl

The network, data, crops, augmentation, loss, optimiser and schedule are those of
configs/brain_slab.py.
"""

import argparse
import json
import math
import pathlib
import random

import numpy as np
import torch

from benchmarks.peers import crops, modes, unet
from benchmarks.peers.train import Trainer

CLASSES, FEATURES, PATCH, BATCH = 4, [16, 32, 64, 128], (96, 96), 8
STEPS, WARMUP, PEAK = 1000, 50, 4e-3
OPTIMIZER = {"learning_rate": PEAK, "weight_decay": 1e-4, "gradient_clip": 1.0}
AUGMENT = {
    "rotation_probability": 0.1,
    "scaling_probability": 0.1,
    "noise_probability": 0.1,
    "blur_probability": 0.0,
    "brightness_probability": 0.0,
    "contrast_probability": 0.0,
    "low_resolution_probability": 0.0,
    "gamma_inverted_probability": 0.0,
    "gamma_probability": 0.0,
}


def main() -> None:
    """Train, and write a line of JSON for the first loss and each validation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--log", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=modes.MODES, default="eager")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=250, help="steps a validation")
    options = parser.parse_args()
    random.seed(options.seed)
    np.random.seed(options.seed)
    torch.manual_seed(options.seed)
    modes.use_cores()
    with np.load(options.data) as file:
        given = dict(file)
    (validation,) = crops.slabs(given, "validation")
    model = unet.UNet(
        dims=2, channels=1, classes=CLASSES, features=FEATURES, norm="batch"
    )
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            torch.nn.init.kaiming_normal_(layer.weight, a=0.01)
    trainer = Trainer(model, options.mode, 2, OPTIMIZER)
    batches = _batches(crops.of_slices(given))
    for step in range(1, STEPS + 1):
        for group in trainer.optimizer.param_groups:
            group["lr"] = _rate(step - 1)
        image, label = next(batches)
        loss = trainer.step(image.movedim(1, -1).numpy(), [label])
        if step == 1:
            _write(options.log, step=step, loss=loss.item())
        if step % options.every == 0:
            dice = _validated(trainer, *validation)
            _write(options.log, step=step, dice=dice)


def _batches(slices: list[tuple[np.ndarray, np.ndarray]]):
    """Augmented crops from two processes."""
    from benchmarks.peers.transforms_nnunet import Transforms

    read = crops.from_memory(slices)
    data = crops.Crops(read, len(slices), PATCH, Transforms(PATCH, AUGMENT))
    return crops.loader(data, batch=BATCH, workers=2)


def _rate(done: int) -> float:
    """Linear warm-up, then half a cosine."""
    if done < WARMUP:
        return PEAK * done / WARMUP
    progress = (done - WARMUP) / (STEPS - WARMUP)
    return PEAK * (1 + math.cos(math.pi * progress)) / 2


@torch.inference_mode()
def _validated(trainer: Trainer, images: np.ndarray, labels: np.ndarray) -> float:
    """Mean Dice of the classes above 0 over all slices together."""
    trainer.model.eval()
    height, width = images.shape[1:]
    padded = np.pad(images, ((0, 0), (0, -height % 8), (0, -width % 8)), "edge")
    found = []
    for first in range(0, len(padded), BATCH):
        part = modes.tensor(padded[first : first + BATCH, ..., None], trainer.layout)
        found.append(trainer.model(part).argmax(1).numpy())
    trainer.model.train()
    predicted = np.concatenate(found)[:, :height, :width]
    scores = []
    for index in range(1, CLASSES):
        prediction, truth = predicted == index, labels == index
        total = prediction.sum() + truth.sum()
        scores.append(2 * (prediction & truth).sum() / total)
    return float(np.mean(scores))


def _write(path: pathlib.Path, **row: float) -> None:
    """Append a line."""
    with path.open("a") as stream:
        stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
