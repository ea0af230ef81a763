"""Answers drawn from the policy, at temperature 1 and from the whole vocabulary.

PPO's ratio is between probabilities of the distribution that was drawn from, so no warper
(top-k, top-p, a repetition penalty of the base's generation settings) may stand between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from services.training.adapters.ppo.networks import positions
from services.training.health import RunStopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Prompts, padded on the left, and the answers after them, padded on the right."""

    tokens_BS: Tensor
    attention_BS: Tensor
    mask_BT: Tensor
    """1.0 on the tokens of the answers; the last T of S."""
    ended_B: Tensor
    """Whether the answer ends its turn."""

    @property
    def width(self) -> int:
        return self.mask_BT.shape[1]

    def rows(self, index_N: Tensor) -> Answers:
        """Some of the answers."""
        return Answers(
            tokens_BS=self.tokens_BS[index_N],
            attention_BS=self.attention_BS[index_N],
            mask_BT=self.mask_BT[index_N],
            ended_B=self.ended_B[index_N],
        )


@torch.no_grad()
def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    answer_tokens: int,
    pad: int,
    end: int,
    generator: torch.Generator,
) -> Answers:
    """One answer to each prompt, of at most `answer_tokens`.

    Raises RunStopped where the policy's probabilities are no numbers.
    """
    width = max(len(prompt) for prompt in prompts)
    padded = [[pad] * (width - len(p)) + list(p) for p in prompts]
    tokens_BS = torch.tensor(padded, device=model.device)
    attention_BS = torch.tensor(
        [[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device
    )
    running_B = torch.ones(len(prompts), dtype=torch.bool, device=model.device)
    new_BN, cache = tokens_BS, None
    for _ in range(answer_tokens):
        outputs = model(
            input_ids=new_BN,
            attention_mask=attention_BS,
            position_ids=positions(attention_BS)[:, -new_BN.shape[1] :],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = outputs.past_key_values
        probabilities_BV = outputs.logits[:, -1].float().softmax(-1)
        if not torch.isfinite(probabilities_BV).all():
            raise RunStopped(
                "not_a_number",
                "the policy's probabilities are not numbers",
                "lower method.train.learning_rate",
            )
        drawn_B = torch.multinomial(probabilities_BV, 1, generator=generator).squeeze(1)
        new_BN = torch.where(running_B, drawn_B, pad).unsqueeze(1)
        tokens_BS = torch.cat([tokens_BS, new_BN], dim=1)
        attention_BS = torch.cat([attention_BS, running_B.long().unsqueeze(1)], dim=1)
        running_B = running_B & (drawn_B != end)
        if not running_B.any():
            break
    return Answers(
        tokens_BS=tokens_BS,
        attention_BS=attention_BS,
        mask_BT=attention_BS[:, width:].float(),
        ended_B=~running_B,
    )
