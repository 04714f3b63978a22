"""The site: it builds without a warning, and the FAQ quotes messages that exist."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
QUOTED = re.findall(r"^### `(.+)`$", (DOCS / "faq.md").read_text(), re.MULTILINE)


def _texts() -> list[str]:
    """Every text of the code, with … for the values of an f-string."""
    texts = []
    for path in (ROOT / "unet_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(
                        part.value if isinstance(part, ast.Constant) else "…"
                        for part in node.values
                    )
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


TEXTS = _texts()


def test_the_page_has_twenty_messages_and_more():
    assert len(QUOTED) == len(set(QUOTED)) >= 20


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_message_is_one_of_the_code(quoted):
    parts = [re.escape(part.strip()) for part in quoted.split("…") if part.strip()]
    pattern = re.compile(".*".join(parts), re.DOTALL)
    assert any(pattern.search(text) for text in TEXTS)


def test_every_page_is_in_the_index_once():
    linked = re.findall(r"\]\((\w+)\.md\)", (DOCS / "index.md").read_text())
    assert sorted(linked) == sorted(
        page.stem for page in DOCS.glob("*.md") if page.stem != "index"
    )


PAGES = [*DOCS.glob("*.md"), *ROOT.glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_to_files(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    missing = [
        link
        for link in links
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert not missing


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going"]
    done = subprocess.run(
        [*command, "-d", tmp_path / "doctrees", DOCS, tmp_path / "site"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    keys = (tmp_path / "site/configs.html").read_text()
    assert "optimizer.learning_rate" in keys
    reference = (tmp_path / "site/reference.html").read_text()
    assert 'id="unet_jax.losses.dice_loss"' in reference
    assert "<math" in reference
    # Whoever opens the site from a disk sends no request.
    loaded = re.compile(r"<(?:script|img|link)[^>]+(?:src|href)=\"(?:https?:)?//")
    for page in (tmp_path / "site").glob("*.html"):
        assert not loaded.search(page.read_text()), page.name
