"""Measures how easy the code is to read and to extend: five counts.

    python benchmarks/house.py            # this tree
    python benchmarks/house.py ../other   # another checkout, such as an older version

1. A training step: the files that hold it, and everything that they call.
2. The import graph: rooms, arrows and floors.
3. Files to edit for a loss, a network, an augmentation, a data source.
4. Lines of ``unet_jax/``.
5. Minutes of the tests: `.ci/run` prints them, this script cannot.

It needs the standard library alone and imports nothing of the package.
"""

import argparse
import ast
import pathlib
import re
from collections.abc import Iterator

Files = dict[str, ast.Module]
Place = tuple[str, str]
"""Module and name of a top-level function or class."""

STEP = {
    "commands/train.py": "the loop: reads a batch, sets the learning rate, steps",
    "experiment/run.py": "from a config to losses, optimizer, state and step",
    "training/step.py": "the step: augment, loss, accumulate, reduce, update, mask",
}
"""Files to read for a step. What they call is understood by its name and docstring."""

STEP_0_1 = {
    "train.py": "what the loop holds",
    "loop.py": "the loop",
    "run.py": "from a config to losses, optimizer, state and mapped step",
    "experiment.py": "from a config to network, optimizer and step",
    "training/step.py": "the step",
    "training/state.py": "the state",
}
"""The files of version 0.1 with the same content."""

NOT_OF_A_STEP = {
    *("_validate", "_validating", "_save_and_stop", "_finish", "check"),
    *("_save_and_leave", "_record", "_watching_save", "_draw_curves", "init_from"),
    *("_check_profile", "_trace", "_print_summary", "loss_terms_of"),
    *("open_dataset", "_check_apart", "_folder_options", "_TfdsDataset", "Dataset"),
    *("_tfds_source", "fit_preprocessing", "create_batches", "create_prepared_cases"),
    *("_open_and_complete", "_preprocessing_of", "_predict_first_stage"),
    *("create_source", "resolve_source", "create_predict_fn_maker", "create_forward"),
    *("TrainedRun", "read_run", "open_run_data", "_check_weights", "load_run"),
    *("read_clusters_of_classes", "_unreadable", "read_steps"),
    *("_in_turn", "_window_batch", "_mirror_axes"),
}
"""Functions and methods of these files that validate, save, score, draw or read data,
or refuse a config. They are not part of a step."""

START = (
    ("commands.train", "train_and_evaluate"),
    ("train", "train_and_evaluate"),
)
"""Where the trail of calls starts: the training command, now and in version 0.1."""

BESIDE = (
    ("models", "the network"),
    ("losses", "the losses"),
    ("training.loss_terms", "the losses"),
    ("training.loss_parameters", "the losses"),
    ("evaluation", "scores, after training"),
    ("augment", "the pipeline"),
    ("data", "the pipeline"),
    ("experiment.data", "the pipeline"),
    ("metrics", "scores, after training"),
    ("inference", "validation"),
    ("segment", "validation"),
    ("experiment.inference", "validation"),
    ("experiment.validation", "validation"),
    ("validation", "validation"),
    ("training.images_alone", "validation"),
    ("commands.evaluate", "scores, after training"),
    ("score", "scores, after training"),
    ("experiment.finished", "scores, after training"),
    ("report", "drawing and printing"),
    ("training.checkpoint", "saving"),
    ("training.manifest", "saving"),
    ("training.resume", "saving"),
    ("bucket", "saving"),
    ("experiment.check", "refusals, before training"),
    ("experiment.complete", "refusals, before training"),
    ("experiment.record", "refusals, before training"),
    ("experiment.label_choices", "scores, after training"),
    ("settings", "refusals, before training"),
    ("experiment.config_file", "refusals, before training"),
    ("experiment.renamed", "refusals, before training"),
    ("workdir", "refusals, before training"),
    ("hosts", "machines"),
    ("runtime", "machines"),
    ("training.guard", "machines"),
    ("training.memory", "machines"),
    ("guard", "machines"),
    ("atomic", "machines"),
    ("compilation", "machines"),
    ("allocator", "machines"),
    ("errors", "errors"),
    ("labels", "a constant"),
)
"""Modules that the trail does not enter, by prefix; the longest prefix counts."""

ROWS = {
    "loss": r"a loss",
    "network": r"a network",
    "augmentation": r"an augmentation",
    "data source": r"a (data source|kind of storage)",
}
"""Rows of the table "Where to add what" in docs/architecture.md."""


def read_files(root: pathlib.Path) -> Files:
    """Parse the package.

    Args:
        root: folder of a checkout.

    Returns:
        Syntax tree of each module, by its dotted name below ``unet_jax``.
    """
    package = root / "unet_jax"
    return {
        ".".join(path.relative_to(package).with_suffix("").parts): ast.parse(
            path.read_text()
        )
        for path in sorted(package.rglob("*.py"))
    }


def imports(files: Files, module: str) -> Iterator[tuple[str, str, str]]:
    """Yield what a module imports from the package: local name, module, name.

    Args:
        files: syntax tree of each module.
        module: name of the module.
    """
    for node in ast.walk(files[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("unet_jax."):
                    target = alias.name.removeprefix("unet_jax.")
                    yield alias.asname or alias.name, target, ""
        elif isinstance(node, ast.ImportFrom) and node.module:
            head, _, rest = node.module.partition(".")
            if head != "unet_jax":
                continue
            for alias in node.names:
                inner = f"{rest}.{alias.name}".lstrip(".")
                local = alias.asname or alias.name
                if inner in files:
                    yield local, inner, ""
                else:
                    package = f"{rest}.__init__".lstrip(".")
                    yield local, rest if rest in files else package, alias.name


def definitions(tree: ast.Module) -> dict[str, ast.AST]:
    """Return the functions and classes at the top of a module, by name."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name: node for node in tree.body if isinstance(node, kinds)}


def trail(files: Files, start: Place) -> set[Place]:
    """Follow the calls of a function through the package.

    A name that is used counts as called, and a class with all its methods. Modules of
    ``BESIDE`` are not entered.

    Args:
        files: syntax tree of each module.
        start: where to begin.

    Returns:
        Functions and classes that are reached.
    """
    found: set[Place] = set()
    waiting = [start]
    while waiting:
        place = waiting.pop()
        module, name = place
        if place in found or module not in files or is_beside(module):
            continue
        own = definitions(files[module])
        if name not in own:
            continue
        found.add(place)
        known = {local: (there, what) for local, there, what in imports(files, module)}
        for node in ast.walk(own[name]):
            if isinstance(node, ast.Name):
                there = known.get(node.id)
                waiting.append(there if there else (module, node.id))
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                there, _ = known.get(node.value.id, ("", ""))
                waiting.append((there, node.attr))
    return found


def is_beside(module: str) -> bool:
    """Whether the trail of a step does not enter a module."""
    return any(
        module == prefix or module.startswith(f"{prefix}.") for prefix, _ in BESIDE
    )


def step_lines(files: Files, module: str) -> int:
    """Return the lines of a module that belong to a step: functions and classes.

    Args:
        files: syntax tree of each module.
        module: name of the module.
    """
    total = 0
    for name, node in definitions(files[module]).items():
        if name in NOT_OF_A_STEP:
            continue
        methods = node.body if isinstance(node, ast.ClassDef) else []
        total += size_of(node) - sum(
            size_of(method)
            for method in methods
            if getattr(method, "name", "") in NOT_OF_A_STEP
        )
    return total


def size_of(node: ast.AST) -> int:
    """Return the number of lines of a function or class, decorators left out."""
    return int(node.end_lineno - node.lineno + 1)  # type: ignore[attr-defined]


def line_count(path: pathlib.Path) -> int:
    """Return the number of lines of a file."""
    return len(path.read_bytes().splitlines())


def room_graph(files: Files) -> dict[str, set[str]]:
    """Return which rooms (packages and top modules) each room imports."""
    graph: dict[str, set[str]] = {}
    for module in files:
        if module == "__init__":
            continue  # the face of the package: imports from everywhere, lazily
        room = module.split(".")[0]
        targets = {there.split(".")[0] for _, there, _ in imports(files, module)}
        graph.setdefault(room, set()).update(targets - {room, "__init__"})
    return graph


def longest_chain(graph: dict[str, set[str]]) -> int | None:
    """Return the number of floors, None if the graph has a circle."""
    depths: dict[str, int] = {}

    def depth(node: str, above: tuple[str, ...]) -> int:
        if node in above:
            raise RecursionError(" -> ".join((*above, node)))
        if node not in depths:
            below = [depth(other, (*above, node)) for other in graph.get(node, ())]
            depths[node] = 1 + max(below, default=0)
        return depths[node]

    try:
        return max(depth(node, ()) for node in graph)
    except RecursionError:
        return None


def edited_files(
    root: pathlib.Path, files: Files
) -> dict[str, tuple[list[str], list[str]]]:
    """Read from the architecture page which files an extension touches.

    Args:
        root: folder of a checkout.
        files: syntax tree of each module.

    Returns:
        For each of ``ROWS``: the files of code, and the names that do not exist.
    """
    page = (root / "docs" / "architecture.md").read_text()
    found = {}
    for what, pattern in ROWS.items():
        row = re.search(rf"^\| {pattern} \|(.*)\|$", page, flags=re.MULTILINE)
        names = re.findall(r"`([^`]+)`", row[0]) if row else []
        # `module.Class` is a contract to fulfil: nothing is edited there.
        names = [name for name in names if not re.fullmatch(r"\w+\.[A-Z]\w+", name)]
        code, missing = [], []
        for name in names:
            place = code_place(root, files, name)
            (missing if place is None else code).append(place or name)
        found[what] = (sorted(set(code)), missing)
    return found


def code_place(root: pathlib.Path, files: Files, name: str) -> str | None:
    """Return the file of code that a name of the page stands for, None if none is.

    A folder stands for one file in it: the one that is written.
    """
    if (root / "unet_jax" / name).exists():
        return name
    if (root / name).exists():
        return name
    for module, tree in files.items():
        top = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (
                node.targets if isinstance(node, ast.Assign) else [node.target]
            )
            if isinstance(target, ast.Name)
        }
        if name.rpartition(".")[2] in {*definitions(tree), *top}:
            return module.replace(".", "/") + ".py"
        if module.endswith(name.removesuffix(".py").replace("/", ".")):
            return module.replace(".", "/") + ".py"
    return None


def print_step(root: pathlib.Path, files: Files) -> None:
    """Print the first count."""
    named = STEP if "commands.train" in files else STEP_0_1
    modules = {path: path.removesuffix(".py").replace("/", ".") for path in named}
    lines = {path: step_lines(files, module) for path, module in modules.items()}
    whole = sum(line_count(root / "unet_jax" / path) for path in named)
    print(f"1. a training step: {len(named)} files, {sum(lines.values())} lines of")
    print(f"   functions and classes ({whole} lines with all that is in these files)")
    for path, why in named.items():
        print(f"     {lines[path]:5} {path}: {why}")
    start = next(place for place in START if place[0] in files)
    reached: dict[str, int] = {}
    for module, name in trail(files, start):
        size = size_of(definitions(files[module])[name])
        reached[module] = reached.get(module, 0) + size
    total = sum(reached.values())
    print(f"   down to the last call: {len(reached)} files, {total} lines of functions")
    print("   and classes, beside network, losses, pipeline, scores, files, machines:")
    for module, size in sorted(reached.items(), key=lambda item: -item[1]):
        print(f"     {size:5} {module.replace('.', '/')}.py")


def main() -> None:
    """Print the counts of a checkout."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    here = pathlib.Path(__file__).resolve().parents[1]
    parser.add_argument("root", nargs="?", type=pathlib.Path, default=here)
    root = parser.parse_args().root
    files = read_files(root)
    print_step(root, files)
    graph = room_graph(files)
    arrows = sum(len(targets) for targets in graph.values())
    floors = longest_chain(graph)
    height = "a circle" if floors is None else f"{floors} floors"
    print(f"2. rooms: {len(graph)} rooms, {arrows} arrows, {height}")
    print("3. files to edit, by docs/architecture.md:")
    for what, (code, missing) in edited_files(root, files).items():
        wrong = f"; not found: {', '.join(missing)}" if missing else ""
        print(f"     {len(code):5} for a new {what}: {', '.join(code)}{wrong}")
    tracked = [
        path
        for path in (root / "unet_jax").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    print(f"4. unet_jax/: {sum(map(line_count, tracked))} lines, {len(tracked)} files")
    print("5. minutes of the tests: see the end of .ci/run's output")


if __name__ == "__main__":
    main()
