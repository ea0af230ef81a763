"""The four networks of PPO on one frozen base: actor, critic and reward are LoRA adapters of it.

The reference is the base with no adapter on. So the four cost one set of weights. Nothing drops
out: the ratio pi / pi_old of a token is 1 until the policy moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from peft import (
    LoraConfig,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from torch import Tensor, nn

ACTOR, CRITIC, REWARD = "default", "critic", "reward"
Judge = Literal["critic", "reward"]


class Networks:
    """A PEFT model with three adapters, and the scalar heads of two of them."""

    def __init__(self, base: Any, config: LoraConfig, *, half: bool, seed: int) -> None:
        torch.manual_seed(seed)  # the initial A of each adapter
        self.model: Any = get_peft_model(base, config)
        for name in (CRITIC, REWARD):
            self.model.add_adapter(name, config)
        width = base.get_input_embeddings().embedding_dim
        self.heads: dict[str, nn.Linear] = {}
        for name in (CRITIC, REWARD):
            head = nn.Linear(width, 1, device=self.device)
            nn.init.normal_(head.weight, std=(width + 1) ** -0.5)
            nn.init.zeros_(head.bias)
            self.heads[name] = head
        self.model.eval()
        self._half = half

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    def parameters(self, name: str) -> list[nn.Parameter]:
        """What is trained of the adapter `name`, its head included."""
        self.model.set_adapter(name)
        adapter = [p for p in self.model.parameters() if p.requires_grad]
        return adapter + (list(self.heads[name].parameters()) if name in self.heads else [])

    def logits(self, tokens_BS: Tensor, mask_BS: Tensor, answer: int, **more: Any) -> Tensor:
        """Logits_BTV (float32) that predict the last `answer` tokens, under what is active."""
        with self._precision():
            outputs = self.model(
                input_ids=tokens_BS,
                attention_mask=mask_BS,
                position_ids=positions(mask_BS),
                logits_to_keep=answer + 1,
                use_cache=False,
                **more,
            )
        logits_BTV: Tensor = outputs.logits[:, :-1].float()
        return logits_BTV

    def judge(self, name: Judge, tokens_BS: Tensor, mask_BS: Tensor) -> Tensor:
        """The scalar_BS (float32) that `name` gives after each token."""
        self.model.set_adapter(name)
        with self._precision():
            decoder = self.model.get_base_model().base_model
            hidden_BSD = decoder(
                input_ids=tokens_BS,
                attention_mask=mask_BS,
                position_ids=positions(mask_BS),
                use_cache=False,
            ).last_hidden_state
        scalar_BS: Tensor = self.heads[name](hidden_BSD.float()).squeeze(-1)
        return scalar_BS

    def state(self, name: str) -> dict[str, Tensor]:
        """The weights of an adapter and its head, by name."""
        adapter = get_peft_model_state_dict(self.model, adapter_name=name)
        weights = {f"adapter.{key}": value.contiguous() for key, value in adapter.items()}
        if name in self.heads:
            weights |= {f"head.{k}": v for k, v in self.heads[name].state_dict().items()}
        return weights

    def load(self, name: str, weights: dict[str, Tensor]) -> None:
        """Put `weights`, as `state` gave them for any judge or for the actor, into `name`."""
        adapter = {
            key.removeprefix("adapter."): value
            for key, value in weights.items()
            if key.startswith("adapter.")
        }
        set_peft_model_state_dict(self.model, adapter, adapter_name=name)
        if name in self.heads:
            head = {
                key.removeprefix("head."): value
                for key, value in weights.items()
                if key.startswith("head.")
            }
            self.heads[name].load_state_dict(head)

    def only_actor(self) -> Any:
        """The PEFT model without the judges."""
        self.model.set_adapter(ACTOR)
        for name in (CRITIC, REWARD):
            self.model.delete_adapter(name)
        return self.model

    @contextmanager
    def _precision(self) -> Iterator[None]:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._half):
            yield


def positions(mask_BS: Tensor) -> Tensor:
    """Positions_BS of tokens with padding on either side."""
    return (mask_BS.cumsum(1) - 1).clamp(min=0)
