"""Faces that the tests draw, in the layouts of FASSEG and of CelebAMask-HQ."""

import json

import numpy as np
import pytest
from PIL import Image

from unet_jax.commands.train import train_and_evaluate
from unet_jax.configs import face
from unet_jax.data.folder.celebamask import PARTS
from unet_jax.data.folder.fasseg import CLASSES
from unet_jax.data.folder.open import open_folder
from unet_jax.data.folder.options import FolderOptions
from unet_jax.errors import InputError

SIZE = 64
COLORS = {
    "skin": (224, 172, 140),
    "nose": (205, 130, 95),
    "eye_g": (60, 60, 66),
    "l_eye": (235, 240, 250),
    "r_eye": (235, 240, 250),
    "l_brow": (90, 60, 30),
    "r_brow": (90, 60, 30),
    "l_ear": (240, 150, 130),
    "r_ear": (240, 150, 130),
    "mouth": (110, 15, 35),
    "u_lip": (220, 60, 90),
    "l_lip": (185, 40, 70),
    "hair": (70, 45, 25),
    "hat": (40, 60, 160),
    "ear_r": (250, 215, 40),
    "neck_l": (190, 190, 60),
    "neck": (150, 95, 75),
    "cloth": (50, 130, 90),
}
TO_FASSEG = {
    "skin": ("skin", "l_ear", "r_ear", "neck"),
    "hair": ("hair", "l_brow", "r_brow"),
    "eyes": ("l_eye", "r_eye"),
    "nose": ("nose",),
    "mouth": ("mouth", "u_lip", "l_lip"),
}


def _shapes(rng):
    """Centre and half axes of an ellipse for each part, in fractions of a picture."""
    x, y = np.add((0.5, 0.52), rng.uniform(-0.05, 0.05, 2))
    wide, high = rng.uniform(0.9, 1.1, 2)
    at = {
        "cloth": (0, 0.52, 0.42, 0.16),
        "neck": (0, 0.34, 0.12, 0.14),
        "neck_l": (0, 0.41, 0.13, 0.035),
        "hair": (0, -0.06, 0.34, 0.36),
        "l_ear": (0.27, 0, 0.06, 0.09),
        "r_ear": (-0.27, 0, 0.06, 0.09),
        "ear_r": (0.29, 0.12, 0.035, 0.04),
        "skin": (0, 0.02, 0.25, 0.31),
        "hat": (0, -0.36, 0.3, 0.09),
        "eye_g": (0, -0.05, 0.23, 0.075),
        "l_eye": (0.11, -0.05, 0.06, 0.045),
        "r_eye": (-0.11, -0.05, 0.06, 0.045),
        "l_brow": (0.11, -0.155, 0.075, 0.03),
        "r_brow": (-0.11, -0.155, 0.075, 0.03),
        "nose": (0, 0.08, 0.05, 0.08),
        "u_lip": (0, 0.18, 0.1, 0.032),
        "l_lip": (0, 0.285, 0.09, 0.032),
        "mouth": (0, 0.232, 0.08, 0.05),
    }
    return {
        part: (x + wide * cx, y + high * cy, wide * a, high * b)
        for part, (cx, cy, a, b) in at.items()
    }


def _face(seed, *, plain=False):
    """A picture, and the mask of each part; plain ones wear nothing."""
    rng = np.random.default_rng(seed)
    rows, columns = (np.indices((SIZE, SIZE)) + 0.5) / SIZE
    tint = rng.uniform(0.85, 1.1)
    picture = np.full((SIZE, SIZE, 3), rng.uniform(120, 190, 3))
    masks = {}
    for part, (x, y, a, b) in _shapes(rng).items():
        if plain and part in ("hat", "ear_r", "neck_l", "eye_g"):
            continue
        inside = ((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 < 1
        masks[part] = inside
    # What is painted later hides what was painted before: in the picture too.
    for part in PARTS:
        if part in masks and part not in ("hair", "neck", "cloth", "neck_l"):
            continue
        if part in masks:
            masks[part] &= ~_above(masks, part)
    for part in PARTS:
        if part in masks:
            picture[masks[part]] = np.array(COLORS[part]) * tint
    picture += rng.normal(0, 5, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8), masks


def _above(masks, part):
    """What hides a part, though it is painted earlier: hair does not cover the face."""
    faces = ("skin", "nose", "l_ear", "r_ear", "ear_r", "hat")
    hidden = {"hair": faces, "neck": ("skin", "neck_l"), "neck_l": ("skin",)}
    over = hidden.get(part, ("neck", "neck_l", "skin"))
    return np.any([masks[name] for name in over if name in masks], axis=0)


def _painted(masks):
    """Classes 1 to 18 as CelebAMask-HQ paints them."""
    label = np.zeros((SIZE, SIZE), np.uint8)
    for index, part in enumerate(PARTS, start=1):
        if part in masks:
            label[masks[part]] = index
    return label


def _fasseg_label(masks):
    """The colours of FASSEG, with no parts but its six."""
    painted = _painted(masks)
    label = np.full((SIZE, SIZE, 3), CLASSES["background"], np.uint8)
    for name, parts in TO_FASSEG.items():
        values = [1 + PARTS.index(part) for part in parts]
        label[np.isin(painted, values)] = CLASSES[name]
    return label


def _save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def _fasseg(root, *, version, train, test):
    """Write a version of FASSEG as it is published."""
    labels = "labels" if version == "V3" else "Labels"
    for split, count in (("Train", train), ("Test", test)):
        for number in range(1, count + 1):
            # Persons of V3 are in one split, in two poses each.
            person = (number - 1) // 2 + (1 if split == "Train" else 51)
            pose = "+15" if number % 2 else "-30"
            name = f"{pose}/personne{person:02d}14{number % 10}+0{pose}"
            name = name if version == "V3" else str(number)
            seed = number if split == "Train" else 1000 + number
            picture, masks = _face(seed, plain=True)
            folder = root / version
            _save(folder / f"{split}_RGB" / f"{name}.bmp", picture)
            _save(folder / f"{split}_{labels}" / f"{name}.bmp", _fasseg_label(masks))
    return root / version


def _celebamask(root, numbers):
    """Write CelebAMask-HQ as it is published: JPEG of twice the size of the masks."""
    for number in numbers:
        picture, masks = _face(number)
        large = np.kron(picture, np.ones((2, 2, 1), np.uint8))
        _save(root / "CelebA-HQ-img" / f"{number}.jpg", large, quality=95)
        folder = root / "CelebAMask-HQ-mask-anno" / str(number // 2000)
        for part, mask in masks.items():
            grey = 255 * mask.astype(np.uint8)
            _save(folder / f"{number:05d}_{part}.png", np.stack([grey] * 3, axis=-1))
    return root


def _open(path, **options):
    options = {"palette_tolerance": 1.0, **options}
    return open_folder(
        FolderOptions(path=str(path), **options),
        seed=0,
        num_threads=2,
        scan_cache=None,
    )


def _cases(dataset, split):
    source = dataset.source(split)
    return {source[i].id: source[i] for i in range(len(source))}


def _problems(path, **options):
    with pytest.raises(InputError) as info:
        _open(path, **options)
    return [*info.value.details] or [str(info.value)]


# ---- FASSEG --------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["V1", "V2", "V3"])
def test_fasseg_is_read_as_published(tmp_path, version):
    folder = _fasseg(tmp_path, version=version, train=6, test=4)
    dataset = _open(folder)
    assert dataset.class_names == tuple(CLASSES)
    cases = {split: _cases(dataset, split) for split in ("train", "validation", "test")}
    assert [len(cases[split]) for split in cases] == (
        [4, 2, 4] if version == "V3" else [5, 1, 4]
    )
    for split, found in cases.items():
        for name, case in found.items():
            assert name.startswith("test/" if split == "test" else "train/")

            assert case.image.shape == (SIZE, SIZE, 3)
            assert set(np.unique(case.label)) == set(range(6))
    if version == "V3":
        groups = [{case.group for case in found.values()} for found in cases.values()]
        assert groups[1] < {"personne01", "personne02", "personne03"}
        assert not groups[0] & groups[1]
        assert groups[2] == {"personne51", "personne52"}


def test_fasseg_classes_are_those_of_the_colours(tmp_path):
    dataset = _open(_fasseg(tmp_path, version="V2", train=3, test=1))
    case = _cases(dataset, "test")["test/1"]
    picture, masks = _face(1001, plain=True)
    np.testing.assert_array_equal(case.image, picture)
    colors = np.array(list(CLASSES.values()), np.uint8)
    np.testing.assert_array_equal(colors[case.label], _fasseg_label(masks))


def test_fasseg_copies_and_images_without_a_mask_are_left_out(tmp_path):
    folder = _fasseg(tmp_path, version="V2", train=4, test=3)
    for number in (1, 9):
        _save(folder / f"Test_RGB/JPEG/{number}.jpg", _face(number)[0])
        _save(folder / f"Test_Labels/JPEG/{number}.jpg", _face(number)[0])
    # The BMP of 3 is gone: its copy is all there is.
    _save(folder / "Test_RGB/JPEG/3.jpg", _face(1003, plain=True)[0], quality=95)
    (folder / "Test_RGB/3.bmp").unlink()
    dataset = _open(folder)
    images = {case.id: case.images[0] for case in dataset.traits}
    assert images["test/1"].endswith("Test_RGB/1.bmp")
    assert images["test/3"].endswith("Test_RGB/JPEG/3.jpg")
    assert "test/9" not in images
    assert "1 images have no mask and are left out" in dataset.notes[0]


def test_fasseg_masks_without_an_image_are_a_problem(tmp_path):
    folder = _fasseg(tmp_path, version="V2", train=4, test=2)
    (folder / "Train_RGB/2.bmp").unlink()
    lines = _problems(folder)
    assert any("Train_Labels/2.bmp: no image has its name" in line for line in lines)


def test_fasseg_colours_are_never_snapped(tmp_path):
    folder = _fasseg(tmp_path, version="V1", train=3, test=1)
    path = folder / "Train_Labels/2.bmp"
    pixels = np.array(Image.open(path))
    # Half of 255 rounded up is hair; orange is nothing.
    pixels[(pixels == CLASSES["hair"]).all(axis=-1)] = (128, 0, 0)
    _save(path, pixels)
    _open(folder)
    assert any(
        "(128, 0, 0)" in line for line in _problems(folder, palette_tolerance=0.0)
    )
    pixels[:2, :3] = (255, 127, 0)
    _save(path, pixels)
    problems = _problems(folder)
    assert len(problems) == 1
    assert "Train_Labels/2.bmp: 6 pixels have a colour that is not in" in problems[0]
    assert "(255, 127, 0)" in problems[0]


def test_the_version_of_fasseg_has_to_be_named(tmp_path):
    for version in ("V1", "V3"):
        _fasseg(tmp_path, version=version, train=2, test=1)
    with pytest.raises(
        InputError, match=r"versions V1, V3; expected one; name it, such as .*V3"
    ):
        _open(tmp_path)


# ---- CelebAMask-HQ -------------------------------------------------------------------


def test_celebamask_is_read_as_published(tmp_path):
    numbers = (0, 7, 1999, 2000, 28001)
    dataset = _open(_celebamask(tmp_path, numbers))
    assert dataset.class_names == ("background", *PARTS)
    cases = {}
    for split in ("train", "validation", "test"):
        cases |= _cases(dataset, split)
    assert sorted(cases) == [f"{number:05d}" for number in numbers]
    for number in numbers:
        _, masks = _face(number)
        assert set(masks) == set(PARTS)
        case = cases[f"{number:05d}"]
        assert case.image.shape == (2 * SIZE, 2 * SIZE, 3)
        expected = np.kron(_painted(masks), np.ones((2, 2), np.uint8))
        np.testing.assert_array_equal(case.label, expected)
    label = cases["00007"].label
    # Eyes lie on the glasses, glasses on the skin: the stated order.
    assert {1, 3, 4, 5} <= set(np.unique(label))


def test_celebamask_leaves_out_what_has_no_partner(tmp_path):
    _celebamask(tmp_path, range(5))
    (tmp_path / "CelebA-HQ-img/3.jpg").unlink()
    for mask in (tmp_path / "CelebAMask-HQ-mask-anno/0").glob("00004_*"):
        mask.unlink()
    # In the folder of other numbers a mask belongs to nothing.
    stray = tmp_path / "CelebAMask-HQ-mask-anno/1/00001_hat.png"
    _save(stray, np.zeros((SIZE, SIZE), np.uint8))
    dataset = _open(tmp_path)
    assert [case.id for case in dataset.traits] == ["00000", "00001", "00002"]
    note = dataset.notes[0]
    assert "1 images have no mask" in note
    assert "1 sets of masks have no image" in note
    assert not any("/1/" in mask for case in dataset.traits for mask in case.masks)


def test_celebamask_problems_name_the_file(tmp_path):
    _celebamask(tmp_path, range(6))
    folder = tmp_path / "CelebAMask-HQ-mask-anno/0"
    mask = np.array(Image.open(folder / "00001_skin.png"))
    _save(folder / "00001_skin.png", mask[:-3])
    blurred = np.array(Image.open(folder / "00002_hair.png"))
    blurred[5, 5] = 90
    _save(folder / "00002_hair.png", blurred)
    picture = np.array(Image.open(tmp_path / "CelebA-HQ-img/4.jpg"))
    _save(tmp_path / "CelebA-HQ-img/4.jpg", picture[:-9])
    problems = _problems(tmp_path)
    assert len(problems) == 3
    assert (
        "00001_skin.png: size (61, 64); expected (64, 64) as the other" in problems[0]
    )
    assert "00002_hair.png: the values [0, 90, 255] (3 of them)" in problems[1]
    assert "00004_skin.png: size (64, 64); expected (119, 128)" in problems[2]


def test_a_folder_that_is_not_there(tmp_path):
    assert "is nothing, expected a folder" in _problems(tmp_path / "no")[0]
    (tmp_path / "Train_RGB").mkdir()
    (tmp_path / "Train_Labels").mkdir()
    assert "expected images with masks" in _problems(tmp_path)[0]


# ---- short runs ----------------------------------------------------------------------


def _run(path, workdir, *, steps):
    """Train for seconds with configs/face.py."""
    config = face.get_config()
    config.data.path = str(path)
    config.data.size = (SIZE, SIZE)
    config.train.patch_size = (SIZE, SIZE)
    config.model.name = "unet"
    config.model.options.features = (16, 32, 48)
    config.augment.enabled = False
    config.train.steps = steps
    config.eval.every_steps = steps
    config.eval.train_images = 2
    config.eval.distance = False
    config.log.overlays = 1
    config.optimizer.warmup_steps = 10
    return train_and_evaluate(config.lock(), workdir)


@pytest.mark.slow
@pytest.mark.usefixtures("one_device", "no_figures")
@pytest.mark.parametrize(
    ("published", "steps"),
    [("FASSEG", 70), pytest.param("CelebAMask-HQ", 190, marks=pytest.mark.soak)],
)
def test_a_short_run_finds_every_part_of_unseen_drawings(tmp_path, published, steps):
    if published == "FASSEG":
        path, names = _fasseg(tmp_path, version="V3", train=24, test=6), tuple(CLASSES)
    else:
        path = _celebamask(tmp_path, range(1990, 2020))
        names = ("background", *PARTS)
    results = _run(path, tmp_path / "run", steps=steps)
    scores = {name: row["dice"] for name, row in results["per_class"].items()}
    # The background is one of the classes that are scored.
    assert tuple(scores) == names
    assert min(scores.values()) > 0.8, scores
    config = json.loads((tmp_path / "run/config.json").read_text())["config"]
    assert config["data"]["class_colors"][0] == [211, 211, 211]
