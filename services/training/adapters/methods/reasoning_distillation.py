"""Reasoning distillation: the student learns how a teacher came to answers that are right.

Hsieh et al., 2023 (arXiv:2305.02301); DeepSeek-AI, 2025 (arXiv:2501.12948), section 2.4. A row's
answer is the teacher's trace and, behind the job's marker, its final answer. Synthesis kept a trace
only where the final answer is the expected one. The loss is that of sequence distillation, over all
tokens of the trace.
"""

from __future__ import annotations

from services.training.adapters.methods import sequence_distillation
from services.training.adapters.session import Session, Trained


def train(session: Session) -> Trained:
    """Train A and B on the verified traces.

    Raises RunStopped if none was right.
    """
    return sequence_distillation.train(session)
