import pathlib
import re

from unet_jax.losses.terms import NAMES, WITHOUT_LABELS

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "losses.md"


def test_the_page_has_every_loss_and_no_other():
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), flags=re.MULTILINE)
    assert tuple(rows) == (*NAMES, *WITHOUT_LABELS)
