"""The import order that docs/architecture.md states is the one that the code has."""

import ast
import pathlib
import re

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


def _imports(path: pathlib.Path) -> set[str]:
    """Names of this project's modules that a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "unet_jax":
                found |= {f"unet_jax.{alias.name}" for alias in node.names}
            elif node.module:
                found.add(node.module)
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
    # Implementations of one operation share its name.
    places, lines = {}, {}
    for path in sorted((ROOT / "unet_jax").rglob("*.py")):
        tree = ast.parse(path.read_text())
        line = (ast.get_docstring(tree) or "").partition("\n")[0]
        lines.setdefault(line, []).append(path.name)
        if path.parent.name == "ops":
            continue
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path.name)
    assert [(name, files) for name, files in places.items() if len(files) > 1] == []
    assert [(line, files) for line, files in lines.items() if len(files) > 1] == []
