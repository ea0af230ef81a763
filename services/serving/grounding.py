"""Do the retrieved documents bear an answer out (M7, M8)? Lexical and pure.

A sentence is borne out by a document that holds at least `COVERED` of its content words and all of
its numbers. That finds invented facts and wrong citations; it does not understand paraphrase or
negation, so a score is a signal to look, not a proof.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

COVERED = 0.6
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]{2,}")
_CITATION = re.compile(r"\[(\d+)\]")
_COMMON = frozenset(
    _WORD.findall(
        "the and for are was were has have had this that these those with from not but its his her "
        "their they you your our can will would should may might also which who whom what when "
        "where how why all any each some such than then there here into over under about is it in "
        "of on to an as at be by or so we he she do does did if no yes"
    )
)


def grounding(answer: str, documents: Sequence[str]) -> float | None:
    """The share (0..1) of the answer's sentences that one of the documents bears out.

    None without documents, or when the answer says nothing.
    """
    sentences = [words for sentence in _sentences(answer) if (words := _words(sentence))]
    if not documents or not sentences:
        return None
    known = [_words(document) for document in documents]
    return sum(any(_borne_out(words, d) for d in known) for words in sentences) / len(sentences)


def citations_supported(answer: str, documents: Sequence[str]) -> bool | None:
    """Whether every `[n]`, counted from 1, names a document that bears out its sentence.

    None without documents, or when nothing is cited.
    """
    if not documents:
        return None
    cited = [
        (int(number), _words(sentence))
        for sentence in _sentences(answer)
        for number in _CITATION.findall(sentence)
    ]
    if not cited:
        return None
    return all(
        1 <= number <= len(documents) and _borne_out(words, _words(documents[number - 1]))
        for number, words in cited
    )


def _sentences(text: str) -> list[str]:
    return [sentence for sentence in _SENTENCE.split(text) if sentence.strip()]


def _words(text: str) -> frozenset[str]:
    found = (word.lower() for word in _WORD.findall(_CITATION.sub(" ", text)))
    return frozenset(word for word in found if word not in _COMMON)


def _borne_out(words: frozenset[str], document: frozenset[str]) -> bool:
    numbers = {word for word in words if word[0].isdigit()}
    return numbers <= document and len(words & document) >= COVERED * len(words)
