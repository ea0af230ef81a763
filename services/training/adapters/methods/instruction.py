"""Instruction tuning: every answer of a conversation is learned, no instruction is.

Ouyang et al., 2022 (arXiv:2203.02155), section 3.1, on conversations of several turns and tasks.
With a_1 … a_n the assistant's turns and x_k all that comes before a_k, the loss is the mean of

    -log pi(a_k | x_k)

over their tokens, each turn's end token included. System, user and tool turns are masked. One pass
over the conversation scores all of its turns.
"""

from __future__ import annotations

from services.training.adapters.conversations import encode_conversations
from services.training.adapters.likelihood import maximise
from services.training.adapters.session import Session, Trained
from services.training.adapters.weights import weights_of


def train(session: Session) -> Trained:
    """Train on every assistant turn of the dataset's conversations."""
    return maximise(session, weights_of(session.plan.recipe), encode=encode_conversations)
