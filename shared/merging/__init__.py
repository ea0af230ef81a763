"""Adapters merged into their base (T7): what may be merged, the arithmetic, and the proof."""

from shared.merging.policy import MergeSource, merge_problems, read_source

__all__ = ["MergeSource", "merge_problems", "read_source"]
