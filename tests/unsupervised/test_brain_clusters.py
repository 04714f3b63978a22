"""The numbers of k-means that docs/unsupervised.md sets beside the W-Net's."""

import importlib.util
import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]


def _script():
    path = ROOT / "benchmarks" / "brain_clusters.py"
    spec = importlib.util.spec_from_file_location("brain_clusters", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ward_merges_what_adds_least_variance():
    merged = _script().merged_by_ward
    centers = np.array([0.0, 1.0, 10.0, 11.0, 20.0, 30.0])
    assert merged(centers, np.ones(6)).tolist() == [0, 0, 1, 1, 2, 3]
    # Two large clusters stay apart where two small ones that lie farther are merged.
    sizes = np.array([9e6, 9e6, 1, 1, 1, 1])
    table = merged(centers, sizes)
    assert table[0] != table[1]
    assert len(set(table.tolist())) == 4


@pytest.mark.slow
def test_the_page_states_what_k_means_reaches_on_the_brain():
    script = _script()
    cases = script.brain_cases()
    scores = (
        script.matched(cases, count=4),
        script.named_by_overlap(cases, count=16),
        script.matched(cases, count=16, zeros=False),
        script.matched(cases, count=16),
    )
    np.testing.assert_allclose(scores, (0.731, 0.859, 0.857, 0.558), atol=0.005)
    for page in ("docs/unsupervised.md", "configs/wnet.py"):
        text = (ROOT / page).read_text()
        for said in ("0.73", "0.86"):
            assert said in text, page
