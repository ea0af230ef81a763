"""Training methods by name. Each is one file with a `train(session)` that reads as a recipe."""

from __future__ import annotations

from importlib import import_module

from services.training.adapters.session import Method
from services.training.health import RunStopped

_NAMES = (
    "cpt",
    "dpo",
    "instruction",
    "ipo",
    "kto",
    "logit_distillation",
    "lora",
    "ppo",
    "qlora",
    "reasoning_distillation",
    "sequence_distillation",
    "sft",
)
METHODS = {name: f"{__name__}.{name}" for name in _NAMES}
"""Method name → module. Modules are heavy and load on use."""


def method(name: str) -> Method:
    """The method called `name`.

    Raises:
        RunStopped: this build cannot train by it.
    """
    if name not in METHODS:
        raise RunStopped(
            "method_unavailable",
            f"training by {name!r} is not available",
            f"set method.name to one of: {', '.join(sorted(METHODS))}",
        )
    train: Method = import_module(METHODS[name]).train
    return train
