"""What the engine keeps, and the one budget for it: pages for keys, values and adapter weights."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence

import torch

from kernels.paging import Arena, Block, PagePool
from services.serving.engine.checkpoint import LlamaShape
from shared.errors import Misconfigured

PAGE = 16
"""Positions of a page. Longer pages waste more of the last one; shorter ones cost look-ups."""


class Memory:
    """The arena and its pool. Whoever uses the pool holds `lock`.

    A page holds keys and values of `PAGE` positions of one layer: (2, K, PAGE, D).

    Raises:
        Misconfigured: not even one sequence of `context` positions fits.

    """

    def __init__(
        self, shape: LlamaShape, dtype: torch.dtype, *, pool_bytes: int, context: int
    ) -> None:
        self.shape, self.dtype = shape, dtype
        page_bytes = 2 * shape.kv_heads * PAGE * shape.head_dim * dtype.itemsize
        self.context_pages = -(-context // PAGE) * shape.layers
        """Pages of one sequence as long as it may be."""
        pages = pool_bytes // page_bytes
        if pages < self.context_pages:
            needed = self.context_pages * page_bytes
            raise Misconfigured(
                f"a pool of {pool_bytes} bytes cannot hold one sequence of {context} tokens, "
                f"which takes {needed}",
                mend=f"set SLUICE_SERVING_POOL_MB to {-(-needed >> 20)} or more, or lower "
                "SLUICE_SERVING_CONTEXT",
            )
        self.lock = threading.RLock()
        self.arena = Arena(pages, page_bytes)
        self.demote: Callable[[Block], None] = lambda _: None
        """Told of each block that is about to be evicted."""
        self.pool = PagePool(pages, evicted=self._evicted)

    def _evicted(self, block: Block, _keys: Sequence[Hashable]) -> None:
        self.demote(block)
