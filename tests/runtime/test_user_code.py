"""Functions of a user's own module are found, and what is wrong with them is told."""

import sys
import zlib

import pytest

from unet_jax.errors import InputError
from unet_jax.runtime.user_code import is_user_code, load_function


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder, off Python's path as for the installed command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part])
    return tmp_path


def test_a_function_of_the_current_folder_is_loaded(folder):
    (folder / "lab_one").mkdir()
    (folder / "lab_one" / "losses.py").write_text("def twice(x):\n    return 2 * x\n")
    assert load_function("lab_one.losses:twice")(3) == 6
    # Python's own modules come first.
    (folder / "colorsys.py").write_text("raise RuntimeError")
    sys.modules.pop("colorsys", None)
    assert load_function("colorsys:rgb_to_hsv")(0, 0, 0) == (0.0, 0.0, 0)


def test_a_name_without_a_module_is_no_user_code():
    assert is_user_code("lab.losses:mine")
    assert not is_user_code("dice")


@pytest.mark.parametrize("name", ["mine", "lab:", ":mine", "lab.py:a b", "lab/x:f"])
def test_another_form_is_refused(name):
    with pytest.raises(InputError, match=r"expected 'package.module:function'"):
        load_function(name)


def test_a_module_that_is_not_there_is_named(folder):
    with pytest.raises(InputError, match="no module 'lab_two'; install it, or start"):
        load_function("lab_two.nets:mine")
    (folder / "lab_two").mkdir()
    with pytest.raises(InputError, match=r"no module 'lab_two.nets'"):
        load_function("lab_two.nets:mine")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import not_there_at_all\n", "needs 'not_there_at_all', which is not inst"),
        ("1 / 0\n", "cannot be imported: ZeroDivisionError: division by zero"),
        ("def (\n", "cannot be imported: SyntaxError"),
        ("def wide():\n    pass\n", "has no function 'wise'; did you mean 'wide'"),
        ("wise = 3\n", "found int, expected a function or class"),
    ],
)
def test_what_is_wrong_in_a_module_is_told(folder, text, message):
    name = f"lab_{zlib.crc32(message.encode())}"
    (folder / f"{name}.py").write_text(text)
    with pytest.raises(InputError, match=message):
        load_function(f"{name}:wise")
