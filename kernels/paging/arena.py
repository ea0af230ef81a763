"""The bytes of the pool: one piece of memory, seen as pages.

Shape suffixes: P pages, the rest is the caller's.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.paging.packing import Packing
from kernels.paging.pool import Block

ALIGNMENT = 64
"""Of every page and every weight, in bytes: a cache line, and the widest vector load."""


class Arena:
    """`pages` pages of `page_bytes`, zero at first. Pages never touched cost no memory."""

    def __init__(self, pages: int, page_bytes: int) -> None:
        if page_bytes % ALIGNMENT:
            raise ValueError(f"pages of {page_bytes} bytes are no multiple of {ALIGNMENT}")
        self.pages, self.page_bytes = pages, page_bytes
        self._memory = torch.frombuffer(mmap.mmap(-1, pages * page_bytes), dtype=torch.uint8)

    def as_pages(self, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
        """Every page as a tensor of `shape`, which fills it: (P, *shape)."""
        return self._memory.view(dtype).view(self.pages, *shape)

    def copy(self, source: Block, target: Block) -> None:
        """Every page of `source` to its counterpart in `target`."""
        pages = self._memory.view(self.pages, self.page_bytes)
        pages[list(target.pages)] = pages[list(source.pages)]

    def place(self, tensors: Sequence[Tensor], packing: Packing, block: Block) -> list[Tensor]:
        """Copy contiguous `tensors` to where `packing` puts them in `block`; views of them there.

        `packing` was made of the tensors' sizes in bytes, `block` of its runs.
        """
        firsts, at = [], 0
        for length in packing.runs:
            firsts.append(block.pages[at] * self.page_bytes)
            at += length
        placed = []
        for tensor, (run, byte) in zip(tensors, packing.places, strict=True):
            start = firsts[run] + byte
            memory = self._memory[start : start + tensor.nbytes]
            view = memory.view(tensor.dtype).view(tensor.shape)
            placed.append(view.copy_(tensor))
        return placed
