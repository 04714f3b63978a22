"""Cases of a folder in which only some classes were labelled."""

import numpy as np
import pytest

from tests.data.folder.folders import open_set, write_set
from unet_jax.data.class_fractions import class_fractions
from unet_jax.data.folder.labelled import find_labelled
from unet_jax.data.labelled_classes import labelled_rows, with_all_labelled
from unet_jax.data.subset import Subset
from unet_jax.errors import InputError

IDS = ("a_0", "a_1", "b_0")
NAMES = ("background", "liver", "tumour")


def _found(given):
    return find_labelled(given, ids=IDS, class_names=NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "case,class\na_0,liver\na_1,liver\nb_0,liver\nb_0,tumour\n",
        "\ufeffcase;classes\na_0; liver\n\na_1;liver\nb_0;liver;tumour\n",
        "case,class\na_*,liver\n",
    ],
)
def test_a_table_has_a_row_for_a_class_or_a_case(tmp_path, text):
    (tmp_path / "some.csv").write_text(text)
    assert _found(str(tmp_path / "some.csv")) == {"a_0": (0, 1), "a_1": (0, 1)}


def test_pairs_of_a_config_and_nothing():
    assert _found((("b_0", "tumour"), ("a_?", ("liver", "tumour")))) == {"b_0": (0, 2)}
    assert _found("") == _found(()) == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((("c_0", "liver"),), "there is no case 'c_0'; expected an id such as 'a_0'"),
        ((("a_0", "spleen"),), "unknown class 'spleen'; expected any of background, l"),
        ((("a_0", ()),), "case 'a_0' has no class"),
        ((1,), r"found \(1,\), expected a CSV file, or pairs"),
        ("/no/such.csv", "/no/such.csv: No such file or directory; expected a CSV"),
    ],
)
def test_what_names_no_case_or_class_is_one_line(given, message):
    with pytest.raises(InputError, match=message):
        _found(given)


def test_a_table_without_its_header_is_refused(tmp_path):
    path = tmp_path / "some.csv"
    for text in ("a_0,liver\n", ""):
        path.write_text(text)
        with pytest.raises(
            InputError, match=r"the header is .*, expected 'case,class'"
        ):
            _found(str(path))


def test_cases_say_which_classes_are_theirs(tmp_path):
    write_set(tmp_path)  # a third of the pixels is of each class
    given = (("[0-2]", "class_1"),)
    data = open_set(tmp_path, labelled_classes=given)
    whole = open_set(tmp_path)
    for split in data.splits.parts:
        source, plain = data.source(split), whole.source(split)
        for index, (case, other) in enumerate(zip(source, plain, strict=True)):
            partly = case.id in "012"
            expected = np.where(other.label == 2, 0, other.label)
            label = expected if partly else other.label
            np.testing.assert_array_equal(case.label, label)
            assert case.labelled_classes == ((0, 1) if partly else None)
            counts = np.bincount(label.ravel(), minlength=3)
            assert source.class_counts(index).tolist() == counts.tolist()
    note = "labelled classes: 3 with all, 3 with class_1; of the other classes"
    assert any(one.startswith(note) for one in data.notes)
    drawn = "WARNING: 0, 1, 2 has pixels of 'class_2', which data.labelled_classes does"
    assert any(one.startswith(drawn) for one in data.notes)
    # A run that began with other labels is not resumed.
    assert data.fingerprint != whole.fingerprint
    assert labelled_rows(whole.source("train"), 3) is None


def test_a_class_that_no_training_case_has_labelled_is_refused(tmp_path):
    write_set(tmp_path)
    with pytest.raises(InputError, match="no training case has 'class_2' labelled"):
        open_set(tmp_path, labelled_classes=(("*", "class_1"),))


class _Partly(list):
    def labelled_classes(self, index):
        return [None, (0, 1)][index]

    def class_counts(self, index):
        return np.array([[4, 4, 8], [12, 4, 0]][index])


def test_fractions_of_a_class_are_those_of_the_cases_that_have_it_labelled():
    found = class_fractions(_Partly("ab"), NAMES)
    assert found.fractions == {"background": 0.25, "liver": 0.25, "tumour": 0.5}


def test_rows_and_whole_cases_of_a_source_and_its_parts():
    source = _Partly("ab")
    assert labelled_rows(source, 3).tolist() == [[True] * 3, [True, True, False]]
    assert labelled_rows(Subset(source, (0,)), 3) is None
    assert list(with_all_labelled(source)) == ["a"]
    assert with_all_labelled(["c"]) == ["c"]
