"""Which rows a recipe refuses to learn from, by name and with a mend."""

from __future__ import annotations

import pytest

from contracts.data import Row
from shared.doctrine.fit import unfit_rows
from tests.training.judged import pair


def changed(i: int, **changes) -> Row:
    return pair(i).model_copy(update=changes)


UNFIT = [
    pytest.param("dpo", [changed(1, rejected=None)], "no `rejected`", id="half a pair"),
    pytest.param("dpo", [changed(1, rejected=" ")], "no `rejected`", id="an empty answer"),
    pytest.param("dpo", [changed(1, target=None)], "no `target`", id="no better answer"),
    pytest.param("dpo", [changed(1, rejected=" good bye ")], "same answer", id="nothing differs"),
    pytest.param("dpo", [changed(1, desirable=False)], "undesirable", id="a bad better answer"),
    pytest.param("ipo", [changed(1, rejected=None)], "no `rejected`", id="half a pair for ipo"),
    pytest.param("kto", [changed(1)], "does not say", id="an answer nobody judged"),
    pytest.param("kto", [changed(1, target=" ", desirable=True)], "no `target`", id="no answer"),
    pytest.param(
        "kto",
        [changed(1, id="p3", desirable=True), changed(1, desirable=False)],
        "opposite of row 'p3'",
        id="judged both ways",
    ),
    pytest.param("cpt", [changed(1)], "nor any other row", id="no domain to learn"),
    pytest.param(
        "cpt",
        [changed(0, document="domain"), changed(1, desirable=False)],
        "would teach",
        id="a bad answer to rehearse",
    ),
    pytest.param("sft", [changed(1, document="domain")], "is a document", id="a text as an answer"),
    pytest.param("lora", [changed(1, desirable=False)], "would teach", id="a bad demonstration"),
    pytest.param(
        "dpo",
        [changed(3), changed(3, id="p1", target="hello there", rejected="good bye")],
        "opposite of row 'p3'",
        id="a contradiction",
    ),
]


@pytest.mark.req("D7", "T1")
@pytest.mark.parametrize(("recipe", "rows", "why"), UNFIT)
def test_a_row_the_recipe_cannot_learn_from_is_named_with_its_mend(recipe, rows, why):
    (problem,) = unfit_rows(recipe, rows)
    assert problem.where == "row 'p1'"
    assert why in problem.problem
    assert problem.mend


def test_texts_and_conversations_to_rehearse_fit_continued_pretraining():
    rows = [changed(0, document="domain"), changed(1, document="general"), changed(2)]
    assert list(unfit_rows("cpt", rows)) == []


@pytest.mark.parametrize("recipe", ["dpo", "lora"])
def test_pairs_fit_dpo_and_their_better_answers_fit_lora(recipe):
    assert list(unfit_rows(recipe, [pair(i) for i in range(20)])) == []
