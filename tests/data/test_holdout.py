"""The held-out documents: chosen by content, stable, never shared with training."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm_engine.data.text.documents import split_holdout
from hrm_engine.errors import DataError

DOCUMENTS = [f"document number {number}" for number in range(2000)]


def test_about_the_fraction_is_held_out() -> None:
    train, held_out = split_holdout(DOCUMENTS)
    assert sorted(train + held_out) == sorted(DOCUMENTS)
    assert 60 <= len(held_out) <= 140  # 100 expected, standard deviation 10


def test_the_split_does_not_depend_on_the_other_documents() -> None:
    _, held_out = split_holdout(DOCUMENTS)
    _, of_half = split_holdout(DOCUMENTS[::-2])
    assert set(of_half) == set(held_out) & set(DOCUMENTS[::-2])


@given(st.lists(st.text(max_size=4), max_size=30), st.floats(0.001, 0.999))
def test_both_sides_are_filled_and_disjoint(documents: list[str], fraction: float) -> None:
    if len({document.strip() for document in documents}) < 2:
        with pytest.raises(DataError, match="--eval-file"):
            split_holdout(documents, fraction)
        return
    train, held_out = split_holdout(documents, fraction)
    assert train
    assert held_out
    assert sorted(train + held_out) == sorted(documents)
    assert not {document.strip() for document in train} & {document.strip() for document in held_out}


def test_order_is_kept() -> None:
    train, held_out = split_holdout(DOCUMENTS)
    assert train == [document for document in DOCUMENTS if document in set(train)]
    assert held_out == [document for document in DOCUMENTS if document in set(held_out)]


@pytest.mark.parametrize("documents", [[], ["one"], ["same", "same", " same\n"]])
def test_one_document_cannot_be_split(documents: list[str]) -> None:
    with pytest.raises(DataError, match="--eval-file"):
        split_holdout(documents)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_fractions_outside_are_refused(fraction: float) -> None:
    with pytest.raises(DataError, match="fraction"):
        split_holdout(["a", "b"], fraction)
