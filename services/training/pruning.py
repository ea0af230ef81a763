"""A student by depth pruning of its base: which decoder blocks it keeps (E3). Pure.

Middle blocks change the residual stream least (Gromov et al., 2024, arXiv:2403.17887; Men et al.,
2024, arXiv:2403.03853), so the first and the last stay, and what is kept lies evenly between.
"""

from __future__ import annotations


def kept_layers(layers: int, keep: int) -> tuple[int, ...]:
    """`keep` of `layers` block indices, ascending, the first and the last among them.

    Raises ValueError unless 2 <= keep <= layers.
    """
    if not 2 <= keep <= layers:
        raise ValueError(f"keep between 2 and {layers} blocks, not {keep}")
    return tuple(round(i * (layers - 1) / (keep - 1)) for i in range(keep))
