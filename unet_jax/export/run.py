"""Segments an image with the networks beside this file, as unet_jax would.

    python run.py INPUT [CHANNEL_2 ...] [-o OUTPUT] [--probabilities FILE.npy]

Needs numpy, onnxruntime, and nibabel for NIfTI or pillow for PNG, JPEG and TIFF. What
else some postprocessing and resampling needs, bundle.json names in "needs".
"""

import argparse
import json
import math
import pathlib
import sys

import numpy as np

FORMAT = 1  # of bundle.json
TIFF_MODES = ("1", "L", "RGB", "RGBA", "F", "I;16", "I;16B")
PICTURES, VOLUMES = (".png", ".jpg", ".jpeg", ".tif", ".tiff"), (".nii.gz", ".nii")


HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from run_grids import needed  # noqa: E402
from run_network import Network  # noqa: E402
from run_steps import apply_steps  # noqa: E402


def read_picture(path, upright):
    """Return the pixels of a picture (height, width, channels)."""
    pillow = needed("PIL.Image", "pillow")
    with pillow.open(path, formats=("PNG", "JPEG", "TIFF")) as file:
        raw, tags = file.tile[0].args, dict(getattr(file, "tag_v2", {}))
        raw = raw if isinstance(raw, str) else str(raw[0])
        deep = "16" in raw and not file.mode.startswith("I")
        odd = tags.get(262) == 0 or 42113 in tags or (tags.get(274, 1) > 1 > upright)
        if file.format == "TIFF" and file.mode not in TIFF_MODES:
            odd = True
        if deep or odd or getattr(file, "n_frames", 1) > 1:
            sys.exit(
                f"run.py: {path}: {file.format} of mode {file.mode} ({raw}), with "
                "pages or missing pixels; expected one picture of 8 bits, grey of "
                "16 bits or floats; predict it with unet_jax"
            )
        if upright:
            file = needed("PIL.ImageOps", "pillow").exif_transpose(file)
        if file.mode == "P":
            file = file.convert("RGBA").convert("RGB")
        elif file.mode not in ("L", "LA", "RGB", "RGBA", "I", "I;16", "I;16B", "F"):
            file = file.convert({"1": "L", "PA": "RGBA"}.get(file.mode, "RGB"))
        pixels = np.atleast_3d(np.asarray(file))
    if pixels.shape[-1] in (2, 4):
        pixels, hidden = pixels[..., :-1], pixels[..., -1] == 0
        pixels = pixels if hidden.all() else pixels * ~hidden[..., None]
    return pixels.astype(pixels.dtype.newbyteorder("="))


def read_volume(path):
    """Return voxels (x, y, z, channels), their affine in millimetres, the header."""
    nifti = needed("nibabel", "nibabel").load(path)
    image, header = np.asarray(nifti.dataobj), nifti.header
    if (float(nifti.dataobj.slope), float(nifti.dataobj.inter)) != (1.0, 0.0):
        image = image.astype(np.float32)
    if image.ndim == 5 and image.shape[3] == 1:
        image = image[:, :, :, 0]
    elif image.ndim <= 3:
        image = image.reshape(*image.shape, *(1,) * (4 - image.ndim))
    if image.ndim != 4 or image.dtype.names:
        sys.exit(
            f"run.py: {path}: shape {image.shape} of {image.dtype}; expected one "
            "volume of numbers; save it as such"
        )
    affine = np.array(nifti.affine, np.float64)
    affine[:3] *= unit(header)
    return image.astype(image.dtype.newbyteorder("=")), affine, header


def unit(header):
    """Return the millimetres of a header's unit."""
    return {"meter": 1e3, "micron": 1e-3}.get(header.get_xyzt_units()[0], 1.0)


def read(paths, reading):
    """Read an image: pixels, spacing, the way back for labels, and the header."""
    kinds = {
        next((e for e in PICTURES + VOLUMES if p.lower().endswith(e)), p) for p in paths
    }
    if not (kinds <= set(PICTURES) or kinds <= set(VOLUMES)):
        sys.exit(
            f"run.py: {' '.join(sorted(kinds))}: expected files of "
            f"{' '.join(PICTURES)}, or of {' '.join(VOLUMES)}; DICOM and other "
            "formats are for unet_jax"
        )
    for path in paths:
        if not pathlib.Path(path).is_file():
            sys.exit(f"run.py: {path}: no such file; give the path of an image")
    if reading["sizes_matter"] and kinds & {".tif", ".tiff"}:
        sys.exit(
            f"run.py: {paths[0]}: the labels depend on the size of a pixel, which "
            "unet_jax reads from TIFF files and run.py does not"
        )
    turned, affine, header = reading["orientation"] != "stored", None, None
    size, spacing = 2, tuple(reading["known_spacing"]) or None
    try:
        found = [
            read_picture(path, turned) if kinds <= set(PICTURES) else read_volume(path)
            for path in paths
        ]
    except Exception as error:  # decoders fail on damaged bytes with any
        sys.exit(f"run.py: {paths[0]}: cannot be read ({error}); export it again")
    parts = found
    if kinds <= set(VOLUMES):
        parts, (_, affine, header), size = [one[0] for one in found], found[0], 3
        spacing = tuple(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).tolist())
        if any(not np.allclose(one[1], affine, atol=1e-3) for one in found):
            sys.exit("run.py: the channels have other affines; expected one grid")
    if len({one.shape[:-1] for one in parts}) > 1:
        sys.exit("run.py: the channels have other sizes; expected one grid")
    image, back = np.concatenate(parts, axis=-1), lambda labels: labels
    if image.dtype.kind == "f" and not (np.abs(image) <= 1e30).all():
        sys.exit(
            f"run.py: {paths[0]}: has values that are NaN, infinite or above "
            "1e30; expected intensities; replace them"
        )
    if size == 3:
        image, spacing, back = turn(image, spacing, affine if turned else None)
    return image, spacing, back, header, affine


def turn(image, spacing, affine):
    """Turn a volume to right, anterior, superior; one slice becomes a picture."""
    axes, flips = [0, 1, 2], [1, 1, 1]
    if affine is not None:
        directions = needed("nibabel.orientations", "nibabel")
        codes = directions.io_orientation(affine)
        axes, flips = codes.astype(int).T.tolist()
        image = directions.apply_orientation(image, codes)
        spacing = tuple(spacing[axes.index(axis)] for axis in range(3))
    single = [axis for axis in range(3) if image.shape[axis] == 1]
    alone = single if len(single) == 1 else []

    def back(labels):
        labels = np.expand_dims(labels, alone[0]) if alone else labels
        labels = np.transpose(labels, (*axes, *range(3, labels.ndim)))
        reversed_axes = [axis for axis in range(3) if flips[axis] < 0]
        return np.ascontiguousarray(np.flip(labels, reversed_axes))

    if alone:
        spacing = tuple(np.delete(spacing, alone[0]).tolist())
        image = image.squeeze(alone[0])
    return image, spacing, back


def calibrated(mean, temperature, head):
    """Return probabilities at a temperature, which keeps their order."""
    if temperature is None:
        return mean
    if head == "softmax":
        powers = (mean / mean.max(-1, keepdims=True)) ** (1 / temperature)
        return powers / powers.sum(-1, keepdims=True)
    mean = np.clip(mean, 0, 1)  # a mean of sigmoids may round to more than 1
    yes, no = mean ** (1 / temperature), (1 - mean) ** (1 / temperature)
    return yes / (yes + no)


def segment(bundle, networks, image, spacing):
    """Return labels (*spatial), and mean probabilities before the temperature."""
    channels = networks[0].prep["channels"]
    if image.shape[-1] != channels:
        sys.exit(
            f"run.py: found {image.shape[-1]} channels; expected {channels}, as "
            "in training; give a file for each, or convert the image"
        )
    mean = np.mean([one.scores(image, spacing) for one in networks], axis=0)
    labels = mean.argmax(axis=-1).astype(np.uint8 if mean.shape[-1] <= 256 else "u2")
    if bundle["regions"]:
        labels[...] = 0
        for channel, region in enumerate(bundle["regions"], start=1):
            labels[mean[..., channel] > 0.5] = region["written"]
    labels = apply_steps(labels, bundle["postprocess"], spacing)
    if threshold := bundle["threshold"]:
        reached = mean[..., threshold["class"]] >= np.float32(threshold["probability"])
        labels[reached] = threshold["class"]
    return labels, mean


def write(path, labels, colors, header, affine):
    """Write a label map: indexed PNG, TIFF, or NIfTI with the affine of its image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if header is None:
        picture = needed("PIL.Image", "pillow").fromarray(labels)
        if path.suffix.lower() == ".png":
            picture.putpalette([part for color in colors for part in color])
        picture.save(path)
        return
    nibabel, header = needed("nibabel", "nibabel"), header.copy()
    shape = tuple(map(int, header.get_data_shape()))
    header.extensions.clear()
    header.set_data_dtype(labels.dtype)
    header.set_intent("none")
    header["cal_min"] = header["cal_max"] = 0
    affine = np.array(affine)
    affine[:3] /= unit(header)
    labels = labels.reshape(shape) if math.prod(shape) == labels.size else labels
    two = isinstance(header, nibabel.Nifti2Header)
    kind = nibabel.Nifti2Image if two else nibabel.Nifti1Image
    nibabel.save(kind(labels, affine, header), path)


def target_of(path, output):
    """Return the path of the label map."""
    name = pathlib.Path(path).name
    ending = next(e for e in VOLUMES + PICTURES if name.lower().endswith(e))
    kept = {".nii": ".nii.gz", ".jpg": ".png", ".jpeg": ".png"}.get(ending, ending)
    made = pathlib.Path(output)
    if not made.name.lower().endswith(VOLUMES + PICTURES):
        made = made / (name[: -len(ending)] + kept)
    if not made.name.lower().endswith(VOLUMES if kept in VOLUMES else kept):
        sys.exit(f"run.py: {made}: expected a name that ends in {kept}")
    return made


def main():
    """Segment the image that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("input", nargs="+", help="an image; or a file a channel")
    parser.add_argument("-o", "--output", default="labels", help="file or folder")
    parser.add_argument("--probabilities", help=".npy file for float16 probabilities")
    given = parser.parse_args()
    bundle = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))
    if bundle["format"] != FORMAT:
        sys.exit(
            f"run.py: bundle.json has format {bundle['format']}, expected "
            f"{FORMAT}; use the run.py that was exported with it"
        )
    image, spacing, back, header, affine = read(given.input, bundle["reading"])
    target = target_of(given.input[0], given.output)
    if any(target.exists() and target.samefile(path) for path in given.input):
        sys.exit(f"run.py: {target}: is the image; name another output")
    networks = [Network(member, HERE) for member in bundle["members"]]
    labels, mean = segment(bundle, networks, image, spacing)
    write(target, back(labels), bundle["class_colors"], header, affine)
    if given.probabilities:
        mean = calibrated(mean, bundle["temperature"], bundle["head"])
        pathlib.Path(given.probabilities).parent.mkdir(parents=True, exist_ok=True)
        np.save(given.probabilities, back(mean).astype(np.float16))
    print(f"{given.input[0]} -> {target}")
    if trust := bundle["trust"]:
        away = networks[0].distance(image, spacing, trust, HERE)
        if not max(away) <= 1:
            print(
                f"warning: {trust['warning']} (distance of features {away[0]:.2f}, "
                f"of intensities {away[1]:.2f}; the limit is 1)"
            )


if __name__ == "__main__":
    main()
