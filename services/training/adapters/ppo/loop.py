"""The PPO loop: sample, reward, estimate, update; its numbers, its health and its checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from contracts.preference import PpoParameters
from services.training.adapters.channel import peak_memory_bytes
from services.training.adapters.ppo import checkpoint
from services.training.adapters.ppo.experience import (
    Experience,
    chosen,
    experience,
    log_softmax_of,
    values,
)
from services.training.adapters.ppo.networks import ACTOR, CRITIC, Networks
from services.training.adapters.ppo.objective import policy_loss, value_loss
from services.training.adapters.ppo.reward import RewardScale
from services.training.adapters.ppo.sampling import Answers, sample
from services.training.adapters.session import Cancelled, Session
from services.training.bucketing import bucketed_order
from services.training.health import RunHealth
from services.training.plan import learning_rate_share
from services.training.policy_health import PolicyHealth
from services.training.reports import Step


class PpoLoop:
    """One session's policy on its way from the base."""

    def __init__(
        self,
        session: Session,
        networks: Networks,
        scale: RewardScale,
        prompts: Sequence[list[int]],
        tokenizer: Any,
        *,
        ppo: PpoParameters,
        beta: float,
    ) -> None:
        self._session, self._networks, self._scale = session, networks, scale
        self._prompts, self._tokenizer, self._ppo, self._beta = prompts, tokenizer, ppo, beta
        self._train = session.plan.recipe.train
        self._actor, self._critic = networks.parameters(ACTOR), networks.parameters(CRITIC)
        self._optimizer = torch.optim.AdamW([*self._actor, *self._critic], weight_decay=0.0)
        self._actor_health, self._critic_health = RunHealth(), RunHealth()
        self._health = PolicyHealth(ppo)
        self._losses: list[float] = []
        self._began_s, self._tokens, self._first = time.monotonic(), 0, 0

    @property
    def tokens_per_s(self) -> float:
        """Prompt and answer tokens sampled and learned from, of this process."""
        return self._tokens / max(time.monotonic() - self._began_s, 1e-9)

    def run(self) -> int | None:
        """Take every step of the plan, from the newest checkpoint if there is one.

        Returns the step it resumed from. Raises RunStopped or Cancelled.
        """
        found = checkpoint.restore(self._session.checkpoints, self._networks, self._optimizer)
        if found is not None:
            self._first, history, self._losses = found
            self._health = PolicyHealth(self._ppo, history)
        for step in range(self._first + 1, self._session.plan.steps + 1):
            if self._session.is_cancelled():
                self._save(step - 1)
                raise Cancelled
            self._step(step)
            if step % self._train.checkpoint_every == 0 or step == self._session.plan.steps:
                self._session.channel.working(f"saving the checkpoint of step {step}")
                self._save(step)
        return None if found is None else self._first

    def recent_loss(self) -> float:
        """Mean policy loss over the last ten steps, those before a resume included."""
        recent = self._losses[-10:]
        return sum(recent) / len(recent) if recent else math.nan

    def answers(self, prompts: Sequence[list[int]], seed: int) -> Answers:
        """One answer of the actor to each prompt; the same seed gives the same ones."""
        return sample(
            self._networks.model,
            prompts,
            answer_tokens=self._ppo.answer_tokens,
            pad=self._tokenizer.pad_token_id,
            end=self._tokenizer.eos_token_id,
            generator=torch.Generator(self._networks.device).manual_seed(seed),
        )

    def lived(self, answers: Answers) -> Experience:
        """What `answers` earn, by the reward model and the critic as they are."""
        return experience(self._networks, answers, self._scale, self._ppo, beta=self._beta)

    def _step(self, step: int) -> None:
        """The algorithm: answers of the policy, then `passes` over them in minibatches."""
        rate = self._set_learning_rate(step)
        self._networks.model.set_adapter(ACTOR)
        prompts = self._batch(step)
        answers = self.answers(prompts, seed=self._train.seed * 1_000_003 + step)
        lived = self.lived(answers)
        self._health.check(step, lived.seen)

        order = torch.Generator().manual_seed(self._train.seed * 1_000_003 + step)
        updates = []
        for _ in range(self._ppo.passes):
            shuffled_B = torch.randperm(len(prompts), generator=order)
            for start in range(0, len(prompts), self._train.batch_size):
                index_N = shuffled_B[start : start + self._train.batch_size]
                updates.append(self._update(step, lived, index_N))
        loss, norm, critic_loss, clipped = (
            sum(x) / len(updates) for x in zip(*updates, strict=True)
        )
        self._losses.append(loss)
        self._tokens += int(answers.attention_BS.sum())
        self._report(step, lived, loss, norm, rate, {"value_loss": critic_loss, "clipped": clipped})

    def _update(
        self, step: int, lived: Experience, index_N: Tensor
    ) -> tuple[float, float, float, float]:
        """One optimizer step on some of the answers: policy loss, its gradient's norm and so on."""
        answers = lived.answers.rows(index_N)
        self._optimizer.zero_grad()

        def actor_loss() -> tuple[Tensor, Tensor]:
            self._networks.model.set_adapter(ACTOR)
            return policy_loss(
                chosen(log_softmax_of(self._networks, answers), answers),
                lived.log_probs_BT[index_N],
                lived.advantages_BT[index_N],
                answers.mask_BT,
                clip=self._ppo.clip,
            )

        def critic_loss() -> tuple[Tensor, Tensor]:
            loss = value_loss(
                values(self._networks, answers),
                lived.values_BT[index_N],
                lived.returns_BT[index_N],
                answers.mask_BT,
                clip=self._ppo.clip,
            )
            return loss, torch.zeros(())

        loss, norm, clipped = _backward(step, actor_loss, self._actor, self._actor_health)
        of_values, _, _ = _backward(step, critic_loss, self._critic, self._critic_health)
        self._optimizer.step()
        return loss, norm, of_values, clipped

    def _batch(self, step: int) -> list[list[int]]:
        """The prompts of a step: an endless pass over all of them, epoch after epoch."""
        size = self._train.batch_size * self._train.gradient_accumulation
        lengths = [len(prompt) for prompt in self._prompts]
        batch = []
        for place in range((step - 1) * size, step * size):
            epoch, index = divmod(place, len(lengths))
            order = bucketed_order(
                lengths, self._train.batch_size, seed=self._train.seed, epoch=epoch
            )
            batch.append(self._prompts[order[index]])
        return batch

    def _set_learning_rate(self, step: int) -> float:
        share = learning_rate_share(
            step - 1, steps=self._session.plan.steps, warmup_share=self._train.warmup_share
        )
        for group in self._optimizer.param_groups:
            group["lr"] = share * self._train.learning_rate
        return share * self._train.learning_rate

    def _save(self, step: int) -> None:
        if step == 0:
            return
        checkpoint.save(
            self._session.checkpoints,
            step,
            self._networks,
            self._optimizer,
            self._health.history,
            self._losses,
        )

    def _report(
        self,
        step: int,
        lived: Experience,
        loss: float,
        norm: float,
        rate: float,
        more: dict[str, float],
    ) -> None:
        steps = self._session.plan.steps
        per_step_s = (time.monotonic() - self._began_s) / (step - self._first)
        self._session.channel.send(
            Step(
                step=step,
                steps=steps,
                loss=loss,
                grad_norm=norm,
                learning_rate=rate,
                tokens_per_s=self.tokens_per_s,
                eta_s=per_step_s * (steps - step),
                peak_memory_bytes=peak_memory_bytes(),
                metrics=asdict(lived.seen) | more,
            )
        )


def _backward(
    step: int,
    loss_of: Callable[[], tuple[Tensor, Tensor]],
    parameters: list[nn.Parameter],
    health: RunHealth,
) -> tuple[float, float, float]:
    """Gradients of one network, clipped to norm 1 and found healthy: loss, norm, second value."""
    loss, second = loss_of()
    health.check_loss(step, loss.item())
    loss.backward()  # type: ignore[no-untyped-call]
    norm = float(nn.utils.clip_grad_norm_(parameters, 1.0))
    health.check_gradient(step, norm)
    return loss.item(), norm, second.item()
