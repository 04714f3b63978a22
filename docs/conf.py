"""Settings of the site: ``python -m sphinx -W --keep-going docs site``.

The pages are plain Markdown that also reads well in the repository. What Markdown has
no form for is added here while the site is built: the navigation (from the links of
index.md), the table of config keys (from configs/base.py), the reference of functions
(from their docstrings).
"""

import importlib
import re
from collections.abc import Iterator

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

from unet_jax.configs.base import KEYS

project = "unet_jax"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# Formulas are MathML, which browsers draw by themselves: no script, no request.
html_math_renderer = "mathml"
napoleon_custom_sections = ["Source"]
html_theme = "furo"
html_title = "unet_jax"
html_show_copyright = False
html_show_sourcelink = False
# Titles such as "## From Python" are targets of links, as they are in the repository.
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_use_rtype = False
napoleon_use_ivar = True
# Quotes are those of Python: '' is an empty string.
smartquotes = False

REFERENCE = (
    "unet_jax",
    "unet_jax.losses",
    "unet_jax.metrics",
    "unet_jax.augment",
)
"""Modules whose public names are in reference.md."""


def _navigation(text: str) -> Iterator[str]:
    """A table of contents for each section of index.md, from its links."""
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        pages = re.findall(r"\]\((\w+)\.md\)", body)
        if pages:
            yield "\n".join(
                ["", "```{toctree}", ":hidden:", f":caption: {title}", "", *pages]
            )
            yield "```"


def _cell(value: object) -> str:
    """A value as code in a cell of a table."""
    return f"`{value}`".replace("|", r"\|")


def _keys() -> Iterator[str]:
    """Tables of all config keys: one for each section."""
    sections: dict[str, list[str]] = {}
    for name in KEYS:
        section = name.partition(".")[0] if "." in name else "The run"
        sections.setdefault(section, []).append(name)
    for section, names in sections.items():
        yield from ("", f"### {section}", "", "| key | default | meaning | accepted |")
        yield "| --- | --- | --- | --- |"
        yield from map(_row, names)


def _row(name: str) -> str:
    """The row of a key."""
    key = KEYS[name]
    accepted = key.limits if key.has_limits else ""
    if key.choices:
        accepted = ", ".join(_cell(repr(choice)) for choice in key.choices)
    notes = ["may change on resume"] * key.may_change
    notes += ["`None`: from the data"] * key.from_data
    text = "; ".join(filter(None, [accepted, *notes]))
    meaning = re.sub(r"([|<*\\])", r"\\\1", key.meaning)
    return f"| {_cell(name)} | {_cell(repr(key.default))} | {meaning} | {text} |"


def _reference() -> Iterator[str]:
    """A section for each module of the reference."""
    for name in REFERENCE:
        module = importlib.import_module(name)
        yield from ("", f"## {name}", "", "```{eval-rst}")
        for member in module.__all__:
            value = getattr(module, member)
            if isinstance(value, type):
                kind = "autoexception" if issubclass(value, Exception) else "autoclass"
            elif callable(value):
                kind = "autofunction"
            elif f"{name}.{member}" in REFERENCE:
                continue
            else:
                kind = "autodata"
            yield f".. {kind}:: {name}.{member}"
        yield "```"


def _complete(_app: object, page: str, source: list[str]) -> None:
    """Append to a page what Markdown has no form for."""
    match page:
        case "index":
            lines = _navigation(source[0])
        case "configs":
            lines = _keys()
        case "reference":
            lines = _reference()
        case _:
            return
    source[0] += "\n".join(["", *lines, ""])


def _sections(
    _app: object, _kind: str, _name: str, _value: object, _options: object, lines: list
) -> None:
    """Put the text of ``Returns: text`` on its own line, as napoleon expects it."""
    found = re.sub(
        r"^(Returns|Raises|Yields|Source): (.+)$",
        r"\n\1:\n    \2",
        "\n".join(lines),
        flags=re.MULTILINE,
    )
    lines[:] = found.split("\n")


def _escape(
    _app: object, _kind: str, _name: str, _value: object, _options: object, lines: list
) -> None:
    """Keep ``*spatial`` and ``|d|`` of prose from being read as markup."""
    inside = ""  # "math" or "example": the block of which no character is changed
    for i, line in enumerate(lines):
        if line.lstrip().startswith((".. math::", ">>>")):
            inside = "math" if "math" in line else "example"
        elif (inside == "example" and not line.strip()) or (
            inside == "math" and line and not line.startswith(" ")
        ):
            inside = ""
        if not inside:
            parts = re.split(r"(``.*?``|`[^`]*`)", line)
            parts[::2] = [re.sub(r"([*|])", r"\\\1", part) for part in parts[::2]]
            lines[i] = "".join(parts)


def _math(block: bool):
    """Return a function that writes a formula as MathML."""

    def visit(writer, node) -> None:
        # Brackets of MathML grow with their content by themselves.
        formula = re.sub(r"\\[Bb]igg?[lr]?(?![a-z])", "", node.astext())
        writer.body.append(tex2mathml(formula, as_block=block))
        raise nodes.SkipNode

    return visit


def setup(app) -> None:
    """Register what completes pages and docstrings; napoleon runs at priority 500."""
    app.connect("source-read", _complete)
    app.connect("autodoc-process-docstring", _sections, priority=400)
    app.connect("autodoc-process-docstring", _escape, priority=1000)
    visits = (_math(block=False), None), (_math(block=True), None)
    app.add_html_math_renderer("mathml", *visits)
