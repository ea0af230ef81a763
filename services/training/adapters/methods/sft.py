"""SFT: supervised fine-tuning on demonstrations, by default of every weight.

The loss is that of LoRA's recipe, the negative log-likelihood of the answer's tokens given the
prompt; `method.parameters` says which weights it moves.
"""

from __future__ import annotations

from services.training.adapters.likelihood import maximise
from services.training.adapters.session import Session, Trained
from services.training.adapters.tokens import encode_file
from services.training.adapters.weights import weights_of


def train(session: Session) -> Trained:
    """Train on the dataset's answers."""
    return maximise(session, weights_of(session.plan.recipe), encode=encode_file)
