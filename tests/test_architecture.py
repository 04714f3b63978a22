"""The import order that docs/architecture.md states is the one that the code has."""

import ast
import functools
import graphlib
import pathlib
import re

from unet_jax.export.bundle import FILES

ROOT = pathlib.Path(__file__).parents[1]


def _rooms() -> dict[str, int]:
    """Read ``unet_jax/room  level`` lines from the page."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    lines = re.findall(r"^(unet_jax/[\w/.]+)\s+(\d+)\s", page, flags=re.MULTILINE)
    return {name.removesuffix(".py").rstrip("/"): int(level) for name, level in lines}


def _room_of(module: str, rooms: dict[str, int]) -> str:
    """Return the room that a dotted or slashed module name lies in."""
    path = module.replace(".", "/")
    matches = [r for r in rooms if path == r or path.startswith(r + "/")]
    assert matches, f"{module} is in no room of docs/architecture.md"
    return max(matches, key=len)


@functools.cache
def _imports(path: pathlib.Path) -> set[str]:
    """Names of this project's modules that a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                place = ROOT / inner.replace(".", "/")
                is_module = place.is_dir() or place.with_suffix(".py").is_file()
                found.add(inner if is_module else str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "unet_jax"} | {
        name
        for name in found
        if name.split(".")[0] in ("tests", "benchmarks", "configs")
    }


def test_modules_import_their_own_room_or_lower_ones():
    rooms = _rooms()
    assert len(rooms) > 10
    wrong = []
    for path in sorted((ROOT / "unet_jax").rglob("*.py")):
        module = str(path.relative_to(ROOT).with_suffix("")).removesuffix("/__init__")
        if module == "unet_jax":
            _assert_lazy(path)
            continue
        room = _room_of(module, rooms)
        for name in _imports(path):
            if name.split(".")[0] != "unet_jax":
                wrong.append(f"{module} imports {name}")
                continue
            other = _room_of(name, rooms)
            if other != room and rooms[other] >= rooms[room]:
                wrong.append(
                    f"{module} ({rooms[room]}) imports {name} ({rooms[other]})"
                )
    assert not wrong, "\n".join(wrong)


def _modules() -> dict[str, set[str]]:
    """Dotted names of the modules that each module of the package imports."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in (ROOT / "unet_jax").rglob("*.py")
    }
    del paths["unet_jax.__init__"]  # it imports lazily
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    return {module: _imports(path) & set(paths) for module, path in paths.items()}


def test_no_modules_import_each_other_in_a_circle():
    graphlib.TopologicalSorter(_modules()).prepare()  # raises CycleError


def test_sources_import_the_rest_of_their_room_and_not_each_other():
    order = {"unet_jax.data.folder": 2, "unet_jax.data.tfds": 2, "unet_jax.data": 1}
    order["unet_jax.data.files"] = 0

    def part(module: str) -> str:
        return max((name for name in order if module.startswith(name)), key=len)

    wrong = [
        f"{module} imports {other}"
        for module, others in _modules().items()
        for other in others
        if module.startswith("unet_jax.data.") and other.startswith("unet_jax.data.")
        if part(other) != part(module) and order[part(other)] >= order[part(module)]
    ]
    assert not wrong, "\n".join(wrong)


def _assert_lazy(path: pathlib.Path) -> None:
    """Hold that the package itself names modules for type checkers alone."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        for part in ast.walk(node):
            if isinstance(part, ast.ImportFrom | ast.Import):
                imported = ast.unparse(part)
                assert imported in (
                    "import importlib",
                    "from typing import TYPE_CHECKING, Any",
                )


def test_every_room_of_the_page_exists():
    for room in _rooms():
        # The configs lie at the top, and travel inside the package.
        place = ROOT / room.replace("unet_jax/configs", "configs")
        assert place.is_dir() or place.with_suffix(".py").is_file(), room


def test_configs_have_no_logic():
    for path in sorted((ROOT / "configs").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.If | ast.For | ast.While | ast.Try), path


def test_a_public_function_has_a_name_of_its_own_and_a_module_a_first_line():
    # So has a public class. Implementations of one operation share its name.
    places, lines = {}, {}
    for path in sorted((ROOT / "unet_jax").rglob("*.py")):
        tree = ast.parse(path.read_text())
        line = (ast.get_docstring(tree) or "").partition("\n")[0]
        lines.setdefault(line, []).append(path.name)
        if path.parent.name == "ops":
            tree.body = [one for one in tree.body if isinstance(one, ast.ClassDef)]
        if path.name in FILES:
            continue  # a bundle's programs do again, without us, what the library does
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef)
            if public and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path.name)
    assert [(name, files) for name, files in places.items() if len(files) > 1] == []
    assert [(line, files) for line, files in lines.items() if len(files) > 1] == []
