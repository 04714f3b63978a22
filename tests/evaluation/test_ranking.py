"""Which cases are called best, median and worst, and which are drawn."""

import pytest

from unet_jax.evaluation.ranking import chosen_cases, ranked_cases


def _results(**dice):
    return {
        "per_case": [
            {"id": name, "class": str(index), "dice": value}
            for name, values in dice.items()
            for index, value in enumerate(values)
        ]
    }


def test_cases_are_ranked_by_the_mean_of_the_classes_they_have():
    results = _results(a=(0.2, 0.6), b=(None, 0.9), c=(None, None), d=(0.4, 0.4))
    ranked = ranked_cases(results)
    assert [one.id for one in ranked] == ["b", "a", "d"]
    assert [one.place for one in ranked] == [1, 0, 3]
    assert [one.rank for one in ranked] == [1, 2, 3]
    assert [one.roles for one in ranked] == [("best",), ("median",), ("worst",)]
    assert ranked[1].dice == pytest.approx(0.4)
    assert ranked[0].per_class == {"0": None, "1": 0.9}


def test_a_single_case_has_all_roles_and_none_has_no_error():
    (one,) = ranked_cases(_results(a=(0.5,)))
    assert one.roles == ("best", "median", "worst")
    assert ranked_cases(_results(a=(None,))) == []


@pytest.mark.parametrize(
    ("count", "ids"),
    [
        (0, []),
        (1, ["c5"]),
        (2, ["c0", "c5"]),
        (3, ["c0", "c3", "c5"]),
        (5, ["c0", "c2", "c3", "c4", "c5"]),
        (9, ["c0", "c1", "c2", "c3", "c4", "c5"]),
    ],
)
def test_bad_cases_come_first_when_few_are_drawn(count, ids):
    results = _results(**{f"c{index}": (1 - index / 10,) for index in range(6)})
    assert [one.id for one in chosen_cases(ranked_cases(results), count)] == ids
