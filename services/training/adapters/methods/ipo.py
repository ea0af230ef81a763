"""IPO: the margin of a pair is drawn to a fixed value, so that it cannot grow without end.

Azar et al., 2023 (arXiv:2310.12036), equation 17, with beta for the paper's tau (ERRATA 3). With h
the difference of the log-ratios, each averaged over its answer's tokens as in the maintained
implementation,

    loss = (h - 1 / (2 beta))^2

There is no beta on h, and this loss replaces DPO's. At the first step h = 0.
"""

from __future__ import annotations

from services.training.adapters.pairs import train_pairs
from services.training.adapters.session import Session, Trained


def train(session: Session) -> Trained:
    """Train A and B on pairs by the squared distance of their margin from 1 / (2 beta)."""
    return train_pairs(session, loss="ipo")
