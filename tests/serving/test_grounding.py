"""Documents bear an answer out, or they do not."""

import pytest

from services.serving.boundary import Judgement, judge
from services.serving.grounding import citations_supported, grounding

DOCUMENTS = (
    "The Aurora pump moves 40 litres per minute and weighs 12 kilograms.",
    "Warranty claims for the Aurora pump are accepted for two years after purchase.",
)


@pytest.mark.req("M7")
@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("The Aurora pump weighs 12 kilograms.", 1.0),
        ("The Aurora pump weighs 15 kilograms.", 0.0),
        ("The Aurora pump weighs 12 kilograms. It was designed by famous Italian artists.", 0.5),
        ("...", None),
    ],
)
def test_a_sentence_is_grounded_by_its_words_and_all_of_its_numbers(answer, score) -> None:
    assert grounding(answer, DOCUMENTS) == score


@pytest.mark.req("M8")
@pytest.mark.parametrize(
    ("answer", "supported"),
    [
        ("The Aurora pump weighs 12 kilograms [1].", True),
        ("The Aurora pump weighs 12 kilograms [2].", False),
        ("The Aurora pump weighs 12 kilograms [3].", False),
        ("The Aurora pump weighs 12 kilograms [1]. Claims last for ten years [2].", False),
        ("The Aurora pump weighs 12 kilograms.", None),
    ],
)
def test_every_citation_must_name_a_document_that_bears_its_sentence_out(answer, supported) -> None:
    assert citations_supported(answer, DOCUMENTS) is supported


def test_without_documents_tools_or_schema_there_is_nothing_to_judge() -> None:
    assert judge("Anything [1].") == Judgement(refused=False)
