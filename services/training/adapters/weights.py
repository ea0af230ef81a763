"""The weights that a recipe lets move, where its method's name does not say which."""

from __future__ import annotations

from contracts.job import Parameters
from contracts.training import Recipe
from services.training.adapters.full_weights import EveryWeight
from services.training.adapters.likelihood import Weights
from services.training.adapters.methods.lora import LowRank
from services.training.adapters.methods.qlora import FourBit
from services.training.plan import moving


def weights_of(recipe: Recipe) -> Weights:
    """What carries out the recipe's `parameters`."""
    chosen: dict[Parameters, Weights] = {
        "full": EveryWeight(),
        "lora": LowRank(),
        "qlora": FourBit(),
    }
    return chosen[moving(recipe)]
