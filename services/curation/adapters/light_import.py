"""Import a library without the optional giants it tries to load.

Presidio probes for transformers, torch and stanza when it is imported, to offer engines that
curation never uses. Hidden from it, the import takes a fraction of the time and memory.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Absent(MetaPathFinder):
    """Says a package is not installed, to the thread that hides it and to no other."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)
        self._thread = threading.get_ident()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if threading.get_ident() == self._thread and fullname.split(".")[0] in self._names:
            raise ModuleNotFoundError(f"{fullname} is hidden here", name=fullname)
        return None


@contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Within it, this thread cannot newly import the packages `names`."""
    finder = _Absent(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
