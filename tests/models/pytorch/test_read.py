"""Files of PyTorch: what torch.save writes is read, what does harm is refused."""

import io
import pathlib
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from unet_jax.errors import InputError
from unet_jax.models.pytorch import opcodes
from unet_jax.models.pytorch.read import read_torch_file

VALUES = pathlib.Path(__file__).parent / "values.pth"  # benchmarks/golden_nnunet.py


@pytest.fixture(scope="module")
def values():
    return read_torch_file(VALUES)


COUNT = np.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("float32", COUNT.astype(np.float32)),
        ("float64", COUNT),
        ("float16", COUNT.astype(np.float16)),
        ("bfloat16", COUNT.astype(ml_dtypes.bfloat16)),
        ("float8_e4m3fn", COUNT.astype(ml_dtypes.float8_e4m3fn)),
        ("uint16", COUNT.astype(np.uint16)),
        ("int8", COUNT.astype(np.int8)),
        ("uint8", COUNT.astype(np.uint8)),
        ("int16", COUNT.astype(np.int16)),
        ("int32", COUNT.astype(np.int32)),
        ("int64", COUNT.astype(np.int64)),
        ("complex64", (COUNT + 1j * COUNT).astype(np.complex64)),
        ("bool", COUNT > 3),
        ("steps", COUNT[:, 1:, ::2].astype(np.float32)),
        ("permuted", COUNT.transpose(2, 0, 1).astype(np.float32)),
        ("expanded", np.ones((5, 3), np.float32)),
        ("empty", np.zeros((0, 3), np.float32)),
        ("scalar", np.float32(5)),
        ("parameter", np.ones(2, np.float32)),
        ("array", np.arange(6.0).reshape(2, 3)),
        ("fortran", np.arange(6).reshape(2, 3)),
        ("big_endian", np.arange(3, dtype=">i4")),
        ("float", np.float64(3.5)),
    ],
)
def test_tensors_and_arrays_are_read(values, name, expected):
    found = values[name]
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


def test_containers_are_read_and_other_objects_are_placeholders(values):
    assert values["list"] == [1, (2, 3, "x"), None, True, 2**70, -5, b"abc\xff"]
    assert values["ordered"] == {"x": 1}
    assert values["set"] == {1, 2}
    assert values["size"] == (2, 3, 4)
    assert list(values["state_dict"]) == ["weight", "bias"]
    device = values["device"]
    assert isinstance(device, opcodes.Unknown)
    assert str(device.name) == "torch.device"
    assert device.arguments == ("cpu",)
    assert values["default"].entries == [("q", [1])]


def test_tensors_of_one_storage_view_it(values):
    places = [
        values[name].__array_interface__["data"] for name in ("float32", "permuted")
    ]
    assert places[0] == places[1]
    with pytest.raises(ValueError, match="read-only"):
        values["float32"][0] = 1


# ---- files made by hand ------------------------------------------------------------


def _zip(path, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(f"a/{name}", content)
    return path


def _read(tmp_path, program, **storages):
    data = {f"data/{name}": content for name, content in storages.items()}
    return read_torch_file(_zip(tmp_path / "x.pth", {"data.pkl": program, **data}))


class _Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.called = (function, arguments)

    def __reduce__(self):
        return self.called


def _tensor(size, stride, *, offset=0, elements=4, name="0", kind="FloatStorage"):
    """The opcodes of one tensor."""

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def whole(numbers):
        return b"(" + b"".join(f"I{n}\n".encode() for n in numbers) + b"t"

    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(("
        + text("storage")
        + f"ctorch\n{kind}\n".encode()
        + text(name)
        + text("cpu")
        + f"I{elements}\ntQI{offset}\n".encode()
        + whole(size)
        + whole(stride)
        + b"I00\nccollections\nOrderedDict\n)RtR."
    )


FOUR = np.arange(4, dtype=np.float32).tobytes()


def test_a_tensor_made_by_hand(tmp_path):
    found = _read(tmp_path, _tensor((2, 2), (1, 2)), **{"0": FOUR})
    np.testing.assert_array_equal(found, [[0, 2], [1, 3]])


def test_what_a_pickle_calls_is_not_called(tmp_path):
    import os

    target = tmp_path / "harm"
    for protocol in (0, 2, 4):
        program = pickle.dumps(
            [_Calls(os.system, f"touch {target}"), _Calls(eval, "1 / 0")], protocol
        )
        found = _read(tmp_path, program)
        assert [str(one.name).split(".")[1] for one in found] == ["system", "eval"]
        assert found[0].arguments == (f"touch {target}",)
    assert not target.exists()


def test_a_module_that_a_pickle_names_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "harmful_module.py").write_text("raise SystemExit(7)")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = _read(tmp_path, b"charmful_module\nThing\n)\x81}b.")
    assert str(found.name) == "harmful_module.Thing"
    assert found.state == {}


def _nested(levels, around=(b"]", b"a")):
    return b"\x80\x02" + around[0] * (levels + 1) + around[1] * levels + b"."


HOSTILE = {
    "deep lists": (_nested(5000), "deeper than 64"),
    "deep tuples": (b"\x80\x02)" + b"\x85" * 5000 + b".", "deeper than 64"),
    "deep calls": (
        b"\x80\x02" + b"ca\nb\n" * 70 + b")" + b"R\x85" * 70 + b".",
        "deeper",
    ),
    "a list in itself": (b"\x80\x02]q\x00h\x00a.", "holds itself"),
    "a key that is a list": (b"\x80\x02}]K\x01s.", "as a key"),
    "a key of nested tuples": (b"\x80\x02})" + b"\x85" * 9999 + b"K\x01s.", "as a key"),
    "an unknown memo": (b"\x80\x02h\x07.", "damaged"),
    "an empty stack": (b"\x80\x020.", "more from the stack"),
    "a missing mark": (b"\x80\x02t.", "a mark"),
    "a stack below its mark": (b"\x80\x02K\x01(R.", "more from the stack"),
    "two values": (b"\x80\x02K\x01K\x02.", "no single value"),
    "no end": (b"\x80\x02K\x01", "damaged"),
    "an unknown opcode": (b"\x80\x02\xff.", "damaged"),
    "an extension": (b"\x80\x02\x82\x01.", "opcode EXT1"),
    "a buffer beside the file": (b"\x80\x05\x97.", "opcode NEXT_BUFFER"),
    "a call of a number": (b"\x80\x02K\x01)R.", "calls what is no name"),
    "a call of a call": (b"\x80\x02ca\nb\n)R)R.", "calls what is no name"),
    "text that is cut": (b"\x80\x02X\xff\xff\xff\x7fabc.", "damaged"),
    "a state of a number": (b"\x80\x02K\x01}b.", "sets a state"),
    "a list filled as a dict": (b"\x80\x02K\x01K\x02a.", "fills int"),
    "a reference to nothing": (b"\x80\x02K\x01Q.", "refers to"),
    "objects in an array": (b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00O8\x85R.", "O8"),
    "a tensor without one": (
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n)R.",
        "wrong",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_opcodes_that_do_harm_are_refused(tmp_path, case):
    program, message = HOSTILE[case]
    with pytest.raises(InputError, match=message) as caught:
        _read(tmp_path, program)
    assert "\n" not in str(caught.value)
    assert "x.pth" in str(caught.value)


def test_a_file_that_calls_with_the_same_list_again_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(opcodes, "MOST_BYTES", 10_000)
    program = b"\x80\x02](" + b")" * 200 + b"eq\x00" + b"ca\nb\nh\x00\x85R0" * 200
    with pytest.raises(InputError, match="calls with more"):
        _read(tmp_path, program + b".")


def test_shared_parts_take_no_time(tmp_path):
    # 2**60 values for whoever would visit each of them.
    twice = b"".join(b"]q%c(h%ch%ce0" % (n + 1, n, n) for n in range(59))
    found = _read(tmp_path, b"\x80\x02]q\x000" + twice + b"h\x3b.")
    assert isinstance(found, list)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (_tensor((5,), (1,)), "reads element 4 of a storage of 4"),
        (_tensor((2, 2), (1, 3)), "reads element 4"),
        (_tensor((1,), (1,), offset=9), "reads element 9"),
        (_tensor((4,), (-1,)), "as sizes"),
        (_tensor((2**62,), (0,)), "as sizes"),
        (_tensor((2**40,), (0,)), "repeats 4"),
        (_tensor((2, 2), (1,)), "strides"),
        (_tensor((4,), (1,), elements=9), "16 bytes, expected 9 times 4"),
        (_tensor((4,), (1,), name="7"), "data/7 is missing"),
        (_tensor((4,), (1,), name="../x"), "is missing"),
        (_tensor((4,), (1,), kind="QInt8Storage"), "QInt8Storage"),
    ],
)
def test_tensors_that_leave_their_storage_are_refused(tmp_path, program, message):
    with pytest.raises(InputError, match=message):
        _read(tmp_path, program, **{"0": FOUR})


def test_a_compressed_zip_is_refused_before_it_is_unpacked(tmp_path):
    bomb = {"data.pkl": b"\x80\x02K\x01.", "data/0": bytes(10**7)}
    path = _zip(tmp_path / "x.pth", bomb, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 20_000
    with pytest.raises(InputError, match="is compressed"):
        read_torch_file(path)


def test_a_zip_of_overlapping_files_is_refused(tmp_path):
    entries = {"data.pkl": b"\x80\x02K\x01.", "data/0": bytes(500), "data/1": b""}
    content = bytearray(_zip(tmp_path / "x.pth", entries).read_bytes())
    place = content.rindex(b"a/data/1") - 46  # its entry in the central directory
    content[place + 20 : place + 28] = struct.pack("<II", 500, 500)
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"states \d+ bytes"):
        read_torch_file(tmp_path / "x.pth")


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty", "no pickle"])
def test_damaged_files_are_refused(tmp_path, damage):
    content = bytearray(VALUES.read_bytes())
    match damage:
        case "cut":
            content = content[: len(content) // 2]
        case "flipped":
            content[content.index(COUNT.astype(np.float32).tobytes()) + 5] ^= 1
        case "text":
            content = bytearray(b"not a checkpoint")
        case "empty":
            content = bytearray()
        case "no pickle":
            made = io.BytesIO()
            _zip(made, {"version": b"3"})
            content = bytearray(made.getvalue())
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a file of PyTorch"):
        read_torch_file(tmp_path / "x.pth")


def test_changed_programs_are_refused_or_read():
    with zipfile.ZipFile(VALUES) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith("data.pkl"))
        program = bytearray(archive.read(name))
    random = np.random.default_rng(0)
    outcomes = set()
    for _ in range(60):
        changed = program.copy()
        for place in random.integers(0, len(program), 3):
            changed[place] = random.integers(256)
        try:
            opcodes.run(
                bytes(changed),
                make=opcodes.Unknown,
                build=lambda value, state: value,
                fetch=lambda identifier: identifier,
            )
            outcomes.add("read")
        except opcodes.NotReadable:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}
