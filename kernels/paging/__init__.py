"""One pool of pages for everything that is kept: keys and values, and adapter weights."""

from kernels.paging.arena import ALIGNMENT, Arena
from kernels.paging.free import FreePages
from kernels.paging.packing import Packing
from kernels.paging.pool import Block, PagePool, PoolFull, PoolUse

__all__ = [
    "ALIGNMENT",
    "Arena",
    "Block",
    "FreePages",
    "Packing",
    "PagePool",
    "PoolFull",
    "PoolUse",
]
