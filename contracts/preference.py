"""Preference tuning as a job asks for it: objectives, their strengths, and PPO's own numbers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contracts.base import Frozen


class PpoParameters(Frozen):
    """Reward model and PPO.

    A step samples an answer to `batch_size * gradient_accumulation` prompts, and learns from them
    `passes` times in minibatches of `batch_size`.
    """

    reward_steps: int = Field(default=100, ge=1)
    """Optimizer steps of the reward model on the pairs, before the policy moves."""
    answer_tokens: int = Field(default=64, ge=1, le=2048)
    """The longest answer sampled; one that does not end by then loses one reward."""
    passes: int = Field(default=4, ge=1, le=32)
    clip: float = Field(default=0.2, gt=0, lt=1)
    """Of the probability ratio and of the value's move."""
    discount: float = Field(default=1.0, gt=0, le=1)
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    maximum_kl: float = Field(default=25.0, gt=0)
    """Nats per answer away from the base at which the run is stopped."""
    maximum_length_ratio: float = Field(default=3.0, gt=1)
    """Mean answer length against that of the first steps, either way, at which it is stopped."""


class PreferenceParameters(Frozen):
    """Preference tuning: a LoRA adapter learns from judged answers; the base is the reference.

    `dpo` (Rafailov et al., 2023) and `ipo` (Azar et al., 2023) read pairs of a better and a worse
    answer, `kto` (Ethayarajh et al., 2024) single answers marked desirable or not. `ppo` (Ouyang et
    al., 2022) learns a reward from pairs, then samples answers to their prompts and raises it.
    """

    objective: Literal["dpo", "ipo", "kto", "ppo"] = "dpo"
    beta: float = Field(default=0.1, gt=0)
    """How strongly the adapter is held to the base."""
    desirable_weight: float = Field(default=1.0, gt=0)
    """KTO: the weight of a desirable row's loss."""
    undesirable_weight: float = Field(default=1.33, gt=0)
    """KTO: the weight of an undesirable row's loss."""
    weights: Literal["given", "auto"] = "given"
    """KTO: `auto` ignores the two weights and takes them from the rows' counts (ERRATA 2)."""
    ppo: PpoParameters | None = None
    """Read where the objective is `ppo`; None is its defaults."""
