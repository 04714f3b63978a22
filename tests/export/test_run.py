"""run.py, imported as a module, gives the labels that the library gives."""

import contextlib
import dataclasses
import importlib
import json
import pathlib
import sys

import flax.linen as nn
import jax
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import unet_jax.export.bundle
from unet_jax.data.intensity import ChannelStatistics
from unet_jax.data.preprocess import Preprocessing
from unet_jax.data.regions import Region, Regions
from unet_jax.errors import InputError
from unet_jax.export.bundle import FILES, bundle_of
from unet_jax.inference.forward import make_forward
from unet_jax.inference.risk import Threshold
from unet_jax.inference.segmenter import make_predict_fn

PROGRAMS = pathlib.Path(unet_jax.export.bundle.__file__).parent
CLASSES = 3


class _Convolution(nn.Module):
    """One convolution, whose scores depend on neighbours and on mirroring."""

    dims: int

    @nn.compact
    def __call__(self, x, *, train=False):
        return nn.Conv(CLASSES, (3,) * self.dims, name="conv")(x)


def _onnx_of(kernel, bias, dims, path):
    last, first = (0, dims + 1, *range(1, dims + 1)), (0, *range(2, dims + 2), 1)
    weights = np.ascontiguousarray(np.moveaxis(kernel, (-1, -2), (0, 1)))
    sizes = ["batch", *(f"n{axis}" for axis in range(dims))]
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["image"], ["first"], perm=last),
            helper.make_node("Conv", ["first", "w", "b"], ["y"], pads=[1] * 2 * dims),
            helper.make_node("Transpose", ["y"], ["logits"], perm=first),
        ],
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [*sizes, "c"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [*sizes, CLASSES])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


@contextlib.contextmanager
def imported_programs():
    """Give run.py and one of its parts as modules."""
    sys.path.insert(0, str(PROGRAMS))
    try:
        yield importlib.import_module("run"), importlib.import_module("run_network")
    finally:
        sys.path.remove(str(PROGRAMS))
        for name in FILES:
            sys.modules.pop(name.removesuffix(".py"), None)


@pytest.fixture(scope="module")
def programs():
    """run.py and one of its parts, as modules."""
    with imported_programs() as modules:
        yield modules


def _segmenter(tmp_path, dims, *, seed=0, mirror=(), head="softmax", **changes):
    options = {
        name: changes.pop(name)
        for name in ("overlap", "logits", "patch_size")
        if name in changes
    }
    values = {
        "network_dims": dims,
        "slice_axis": 2,
        "spacing": None,
        "size": None,
        "crop_nonzero": False,
        "intensity": "zscore",
        "channels": 1,
    }
    preprocessing = Preprocessing(**{**values, **changes})
    network, rng = _Convolution(dims), np.random.default_rng(seed)
    shape = (*(3,) * dims, preprocessing.input_channels, CLASSES)
    kernel = rng.normal(size=shape).astype(np.float32)
    bias = rng.normal(size=CLASSES).astype(np.float32)
    _onnx_of(kernel, bias, dims, tmp_path / f"model_{seed}.onnx")
    logits = options.get("logits", False)
    return make_predict_fn(
        make_forward(network, mirror_axes=mirror, head=head, logits=logits),
        {"params": {"conv": {"kernel": kernel, "bias": bias}}},
        preprocessing,
        num_classes=CLASSES,
        window_batch=2,
        head=head,
        **{"overlap": 0.5, "patch_size": (8,) * dims, **options},
    )


def _bundle(segmenter, mirror=(), seeds=(0,)):
    made = bundle_of(
        segmenter,
        models=[f"model_{seed}.onnx" for seed in seeds],
        mirror_axes=mirror,
        class_names=("background", "a", "b"),
        class_colors=((0, 0, 0), (255, 0, 0), (0, 255, 0)),
        reading={"orientation": "", "known_spacing": []},
        trust=None,
    )
    return json.loads(json.dumps(made, allow_nan=False))


def _image(shape, channels=1, dtype=np.uint8):
    image = np.random.default_rng(1).integers(0, 200, (*shape, channels))
    image[:3], image[:, -2:] = 0, 0
    return image.astype(dtype)


def _assert_equal(programs, tmp_path, segmenter, image, spacing, *, mirror=(), **more):
    run, network = programs
    bundle = _bundle(segmenter, mirror, **more)
    networks = [network.Network(one, tmp_path) for one in bundle["members"]]
    labels, mean = run.segment(bundle, networks, image, spacing)
    wanted = np.empty((*image.shape[:-1], segmenter.num_classes), np.float32)
    calibrated = dataclasses.replace(segmenter, temperature=None)
    expected = calibrated(image, spacing, probabilities=wanted)
    np.testing.assert_allclose(mean, wanted, atol=2e-5)
    best = np.sort(wanted, axis=-1)
    sure = best[..., -1] - best[..., -2] > 1e-4
    assert sure.mean() > 0.9
    assert labels.dtype == expected.dtype
    np.testing.assert_array_equal(labels[sure], expected[sure])
    return mean


_FLAT = (ChannelStatistics(20.0, 150.0, 80.0, 40.0),)


@pytest.mark.parametrize(
    ("dims", "shape", "spacing", "changes"),
    [
        (2, (17, 11), None, {}),
        (2, (5, 30), None, {"crop_nonzero": True, "overlap": 0.25}),
        (2, (17, 11), None, {"intensity": "percentile", "statistics": _FLAT}),
        (2, (17, 11), None, {"intensity": "full_range"}),
        (2, (21, 13), None, {"zero_outside": True, "crop_nonzero": True}),
        (2, (21, 13), None, {"size": (9, 16)}),
        (2, (9, 14, 5), (1.0, 2.0, 3.0), {"spacing": (1.5, 1.5, 1.0)}),
        (2, (9, 14, 5), (1.0, 1.0, 3.0), {"adjacent_slices": 1}),
        (3, (9, 14, 10), (1.0, 2.0, 1.0), {"spacing": (1.5, 1.5, 1.0)}),
        (
            3,
            (9, 14, 6),
            (1.0, 1.0, 5.0),
            {"spacing": (1.2, 1.2, 4.0), "resampling": "nnunet", "logits": True},
        ),
        (2, (17, 6), None, {"patch_size": (7, 9), "logits": True, "overlap": 0.5}),
    ],
)
def test_labels_are_those_of_the_library(
    programs, tmp_path, dims, shape, spacing, changes
):
    segmenter = _segmenter(tmp_path, dims, **changes)
    _assert_equal(programs, tmp_path, segmenter, _image(shape), spacing)


@pytest.mark.parametrize(
    "scheme",
    ["zscore_whole", "zscore_filled", "unit_range", "rgb", "none", "full_range"],
)
def test_each_channel_has_its_scheme(programs, tmp_path, scheme):
    segmenter = _segmenter(
        tmp_path, 2, intensity=("zscore", scheme), channels=2, crop_nonzero=True
    )
    _assert_equal(programs, tmp_path, segmenter, _image((9, 12), 2), None)


def test_mirrors_are_averaged(programs, tmp_path):
    segmenter = _segmenter(tmp_path, 2, mirror=(0, 1))
    _assert_equal(programs, tmp_path, segmenter, _image((9, 12)), None, mirror=(0, 1))


def test_regions_are_written_in_their_order(programs, tmp_path):
    segmenter = _segmenter(tmp_path, 2, head="sigmoid")
    regions = Regions((Region("whole", (1, 2), 1), Region("core", (2,), 2)))
    segmenter = dataclasses.replace(segmenter, regions=regions)
    run, network = programs
    bundle, image = _bundle(segmenter), _image((9, 12))
    networks = [network.Network(one, tmp_path) for one in bundle["members"]]
    labels, _ = run.segment(bundle, networks, image, None)
    np.testing.assert_array_equal(labels, segmenter(image, None))
    assert set(np.unique(labels)) == {0, 1, 2}


def test_members_postprocessing_and_threshold(programs, tmp_path):
    one, two = (_segmenter(tmp_path, 2, seed=seed) for seed in (0, 1))
    segmenter = dataclasses.replace(
        one,
        members=one.members + two.members,
        steps=(
            ("largest_component", (1, 2), None),
            ("min_size", 2, 4),
            ("fill_holes", 1, None),
            ("fill_planes", (1, 2), None),
        ),
        threshold=Threshold(2, 0.3),
    )
    image = _image((19, 12))
    _assert_equal(programs, tmp_path, segmenter, image, None, seeds=(0, 1))


def test_a_radius_parts_components_as_the_library_does(programs):
    from unet_jax.inference.postprocess import apply_steps

    steps = importlib.import_module("run_steps")
    rng = np.random.default_rng(0)
    labels = (rng.random((24, 24, 12)) > 0.35).astype(np.uint8)
    labels[8:16, :, 2:9], labels[2:6, 2:6] = 1, 2
    given = [("largest_component", (1, 2), 1.0), ("fill_planes", (1, 2), None)]
    made = steps.apply_steps(
        labels, [[name, list(index), n] for name, index, n in given], (1.0, 1.0, 1.0)
    )
    expected = apply_steps(labels, given, spacing=(1.0, 1.0, 1.0))
    assert (expected != labels).any()
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_a_temperature_calibrates_the_mean_and_changes_no_label(
    programs, tmp_path, head
):
    segmenter = _segmenter(tmp_path, 2, head=head)
    segmenter = dataclasses.replace(segmenter, temperature=2.5)
    image, run = _image((9, 12)), programs[0]
    mean = _assert_equal(programs, tmp_path, segmenter, image, None)
    wanted = np.empty((*image.shape[:-1], CLASSES), np.float32)
    segmenter(image, None, probabilities=wanted)
    made = run.calibrated(mean, 2.5, head)
    np.testing.assert_allclose(made, wanted, atol=2e-5)
    np.testing.assert_array_equal(made.argmax(-1), mean.argmax(-1))


def test_a_cascade_is_refused(tmp_path):
    segmenter = _segmenter(tmp_path, 2)
    (member,) = segmenter.members
    second = dataclasses.replace(member, previous=segmenter)
    with pytest.raises(InputError, match="previous stage"):
        _bundle(dataclasses.replace(segmenter, members=(second,)))


def test_no_program_imports_this_package_or_jax():
    for name in FILES:
        lines = (PROGRAMS / name).read_text().splitlines()
        assert not [one for one in lines if "import jax" in one or "unet_jax." in one]
        assert len(lines) < 300
    assert jax.__name__ in sys.modules  # so that only the text can tell
