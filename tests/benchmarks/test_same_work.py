import re

import numpy as np
import pytest

from benchmarks.same_work import OtherWorkError, check_facts, check_outputs


@pytest.fixture
def sides(tmp_path):
    """Write the outputs of two sides."""

    def write(ours, peer):
        paths = tmp_path / "ours.npz", tmp_path / "peer.npz"
        np.savez(paths[0], **ours)
        np.savez(paths[1], **peer)
        return paths

    return write


def test_equal_facts_pass():
    check_facts(
        {"parameters": 7, "output": [1, 2]}, {"output": [1, 2], "parameters": 7}
    )


@pytest.mark.parametrize("peer", [{"parameters": 8}, {}, {"parameters": 7, "more": 1}])
def test_different_facts_are_refused(peer):
    with pytest.raises(OtherWorkError, match="expected them equal"):
        check_facts({"parameters": 7}, peer)


def test_differences_are_a_fraction_of_the_largest_value(sides):
    paths = sides({"y": np.array([200.0, 1.0])}, {"y": np.array([200.0, 3.0])})
    found = check_outputs(*paths, {"y": 0.01})
    assert found == {"y": {"found": pytest.approx(0.01), "allowed": 0.01}}


def test_small_values_are_compared_with_one(sides):
    paths = sides({"y": np.array([0.001])}, {"y": np.array([0.003])})
    assert check_outputs(*paths, {"y": 0.01})["y"]["found"] == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("ours", "peer", "message"),
    [
        ({"y": np.zeros(2)}, {"y": np.ones(2)}, "differ by 1 of the largest value"),
        ({"y": np.zeros(2)}, {"y": np.full(2, np.nan)}, "differ by nan"),
        ({"y": np.zeros(2)}, {"y": np.zeros(3)}, "found shape (2,) in ours and (3,)"),
        ({"y": np.zeros(2)}, {"z": np.zeros(2)}, "found it on one side only"),
    ],
)
def test_other_outputs_are_refused(sides, ours, peer, message):
    with pytest.raises(OtherWorkError, match=re.escape(message)):
        check_outputs(*sides(ours, peer), {"y": 0.1})
