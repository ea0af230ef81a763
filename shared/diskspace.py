"""Whether an error is a full disk in disguise.

Python, SQLite and the tensor libraries each say it in their own way; for us it is one condition:
somebody frees space, and the same step goes on.
"""

from __future__ import annotations

import errno

_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
_WORDS = ("no space left on device", "disk quota exceeded", "disk is full", "os error 28")


def is_disk_full(error: BaseException) -> bool:
    """Whether `error`, or what it came from, is a full disk or an exhausted quota."""
    return any(
        getattr(cause, "errno", None) in _ERRNOS or says_disk_full(str(cause))
        for cause in causes_of(error)
    )


def says_disk_full(text: str) -> bool:
    """Whether the last words of a program speak of a full disk."""
    return any(words in text.lower() for words in _WORDS)


def causes_of(error: BaseException) -> list[BaseException]:
    """`error`, what it came from, and so on; each once."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    return chain
