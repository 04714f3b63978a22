"""The language of the project: words that docstrings, messages and docs avoid.

Readers come from everywhere. Each entry of ``AVOIDED`` names the standard term to write
instead. A word is looked for as a whole word, and as a part of a name between
underscores, in comments, strings (docstrings and messages), names and Markdown pages.
"""

import ast
import io
import json
import pathlib
import re
import tokenize
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]

AVOIDED = {
    r"shares?": "fraction; 'part' for what one process handles",
    r"deviations?": "standard deviation, or std in names",
    r"mend(s|ed|ing)?": "fix",
    r"faults?": "error, problem or defect",
    r"formulations?": "implementation",
    r"likewise": "say what is meant",
    r"no good": "say what is wrong",
    r"two times": "twice",
    r"turned out": "say what is",
    r"(told|said|asked) (is|are)": "normal word order",
    r"anew": "again",
    r"so many": "the number of",
    r"what becomes of": "how something is handled",
    r"cannot be had": "is not available",
}
"""Pattern of a word -> what to write instead."""

ALLOWED = (
    r"standard deviations?",
    r"page[- ]faults?",
    r"segmentation faults?",
    # The verb.
    r"(to|not|and|they|can|cannot|must|may|that|which|both|all|together|them) share",
    r"(workers|processes|devices|runs|files|tests|classes|cases|networks|maps) share",
    r"(splits|sets|metrics|groups|windows|functions|modules|pixels|images) share",
    r"(operations?|neighbours|rows|palette|no two \w+|sizes)[ _]share",
    r"standard_deviation",
    # Names that data, files, other packages and earlier versions have.
    r"volume_deviation",
    r"share_scope",
    r"deviation_key|test_share|validation_share|noise_deviation|shares=",
    r"[\"'`](share|deviation)[\"'`]",
)
"""Phrases that are fine although a word in them is not."""

_WORD = re.compile(
    r"(?<![A-Za-z])(?:" + "|".join(AVOIDED) + r")(?![A-Za-z])", re.IGNORECASE
)
_FINE = re.compile("|".join(ALLOWED), re.IGNORECASE)


def _avoided(text: str) -> list[str]:
    """Words of a text that are to be avoided."""
    one_line = " ".join(text.split())
    return [match[0] for match in _WORD.finditer(_FINE.sub("", one_line))]


def _python_texts(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each comment, string and name."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.NAME, tokenize.STRING):
            yield token.start[0], token.string
        elif token.type == getattr(tokenize, "FSTRING_MIDDLE", None):
            yield token.start[0], token.string  # Python 3.12 and newer


def _texts(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Line and text of everything in a file that a person reads."""
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from _python_texts(content)
    elif path.suffix == ".ipynb":
        for number, cell in enumerate(json.loads(content)["cells"], start=1):
            yield number, "".join(cell["source"])
    else:
        yield from enumerate(content.splitlines(), start=1)


def _files() -> list[pathlib.Path]:
    """Every Python file, Markdown page and notebook, except this file."""
    folders = ("unet_jax", "configs", "tests", "benchmarks", "docs")
    found = sorted(ROOT.glob("*.md"))
    for folder in folders:
        for suffix in ("*.py", "*.md"):
            found += sorted((ROOT / folder).rglob(suffix))
    found += sorted((ROOT / "notebooks").glob("*.ipynb"))
    return [path for path in found if path.name != "test_language.py"]


def test_words_to_avoid_are_avoided():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {', '.join(words)}"
        for path in _files()
        for line, text in _texts(path)
        if (words := _avoided(text))
    ]
    assert not found, "\n".join([*found, f"({len(found)} places; see AVOIDED)"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the share of each class", ["share"]),
        ("processes share one folder", []),
        ("the deviation, not the standard deviation", ["deviation"]),
        ("train_share = 0.2", ["share"]),
        ("shared memory, by default", []),
        ("N Faults; mend them all", ["Faults", "mend"]),
    ],
)
def test_whole_words_are_found_and_phrases_are_allowed(text, words):
    assert _avoided(text) == words


def test_every_module_says_what_it_does():
    """A first line is no question and no riddle: it starts with a word and ends so."""
    for path in sorted((ROOT / "unet_jax").rglob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text()))
        assert text, path
        first = text.partition("\n")[0]
        assert first.endswith("."), f"{path}: {first}"
        assert "?" not in first, f"{path}: {first}"
