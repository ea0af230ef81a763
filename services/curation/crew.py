"""Several processes for work that knows nothing of what came before, its results in order.

Each worker gets the work once and one piece of it at a time; the results come in the order of the
pieces, and no more pieces than workers and one are under way, so memory has an end. A worker that
is killed takes the others with it (their pool is broken): the pieces without a result are done
again by new ones. Workers die with the process that started them, however that ends.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from multiprocessing import get_context
from typing import Any, TypeVar

from shared.errors import PermanentError
from shared.leash import hold

T = TypeVar("T")
R = TypeVar("R")
DEATHS = 3
"""In a row, without a result between them, and the work is given up."""
_WORK: list[Callable[[Any], Any]] = []
"""In a worker: what it does."""


class WorkerKilled(PermanentError):
    """A worker was killed again and again at one place. What was committed before it is kept."""

    def __init__(self, piece: str) -> None:
        super().__init__(
            f"a worker was killed {DEATHS} times at {piece}",
            mend="give the service more memory, or set SLUICE_CURATION_PROCESSES=1, and try again: "
            "it goes on with this shard",
        )


def in_order(
    work: Callable[[T], R], pieces: Sequence[T], processes: int, named: Callable[[T], str] = str
) -> Generator[R, None, None]:
    """`work(piece)` for each piece, in order; by this process itself where `processes` is 1.

    `work` and what it takes and gives can be pickled. Close the iterator to end the workers.

    Raises:
        WorkerKilled: workers died at one piece, named by `named`, `DEATHS` times.
    """
    if processes < 2:
        yield from map(work, pieces)
        return
    at = deaths = 0
    while at < len(pieces):
        try:
            with closing(_by_workers(work, pieces[at:], processes)) as results:
                for found in results:
                    yield found
                    at, deaths = at + 1, 0
        except BrokenProcessPool as error:
            deaths += 1
            if deaths == DEATHS:
                raise WorkerKilled(named(pieces[at])) from error


def _by_workers(
    work: Callable[[T], R], pieces: Sequence[T], processes: int
) -> Generator[R, None, None]:
    pool = ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=_begin, initargs=(work, os.getpid())
    )
    under_way: deque[Future[R]] = deque()
    try:
        for piece in pieces:
            under_way.append(pool.submit(_do, piece))
            if len(under_way) > processes:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(work: Callable[[Any], Any], parent: int) -> None:
    hold(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to heed
    _WORK.append(work)


def _do(piece: Any) -> Any:
    return _WORK[0](piece)
