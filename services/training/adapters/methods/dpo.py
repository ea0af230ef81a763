"""DPO: the chosen answer becomes likelier than the rejected one, measured against the base.

Rafailov et al., 2023 (arXiv:2305.18290), equation 7. With h the difference of the log-ratios,

    h = log pi(chosen | x) / pi_ref(chosen | x) - log pi(rejected | x) / pi_ref(rejected | x)
    loss = -log sigmoid(beta h)

Log-probabilities are sums over an answer's tokens. At the first step h = 0 and the loss is log 2.
"""

from __future__ import annotations

from services.training.adapters.pairs import train_pairs
from services.training.adapters.session import Session, Trained


def train(session: Session) -> Trained:
    """Train A and B on pairs by the logistic loss of their margin."""
    return train_pairs(session, loss="sigmoid")
