"""Names a tenant calls private: schemas, tables, projects, products without a name yet (C3).

Nothing tells a private name from a public one but its owner, so the job lists them
(`curation.private_terms`) and each becomes `<PRIVATE>`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from services.curation.redaction import Detector, Span


class WithPrivateTerms:
    """A detector that finds, besides what another finds, the terms of a list, in any case."""

    def __init__(self, detector: Detector, terms: Sequence[str]) -> None:
        self._detector = detector
        longest_first = sorted(terms, key=len, reverse=True)
        self._terms = re.compile(
            rf"(?<!\w)(?:{'|'.join(re.escape(t) for t in longest_first)})(?!\w)", re.IGNORECASE
        )

    def detect(self, texts: Sequence[str]) -> list[list[Span]]:
        """The spans of each text."""
        found = self._detector.detect(texts)
        for text, spans in zip(texts, found, strict=True):
            spans += [Span(m.start(), m.end(), "PRIVATE") for m in self._terms.finditer(text)]
        return found
