import pathlib
import re

from unet_jax.evaluation.metric_table import METRICS

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_has_every_metric_and_no_other():
    rows = re.findall(r"^\| `([\w/<>]+)` \|", PAGE.read_text(), flags=re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == {*METRICS, "f2", "loss/<name>"}
