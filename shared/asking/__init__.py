"""Asking a model, behind any OpenAI-compatible endpoint, about rows.

Diagnosis, evaluation, synthesis and shadow all need answers and none of them loads weights: they
ask serving, whose inference plane batches across callers.
"""

from shared.asking.asker import Asker
from shared.asking.cache import AnswerCache
from shared.asking.request import Answer, AskOptions, call_text, chat_messages, chat_request
from shared.asking.retry import Retry, together
from shared.asking.scored import Scored, score_answers, scored_answers

__all__ = [
    "Answer",
    "AnswerCache",
    "AskOptions",
    "Asker",
    "Retry",
    "Scored",
    "call_text",
    "chat_messages",
    "chat_request",
    "score_answers",
    "scored_answers",
    "together",
]
