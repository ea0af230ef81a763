"""PPO: a reward learned from pairs, raised by a policy that is charged for leaving the base.

Ouyang et al., 2022 (arXiv:2203.02155). With r the reward model and y drawn from pi,

    maximise  E[ r(x, y) - beta log(pi(y | x) / pi_ref(y | x)) ]

by the clipped objective on advantages of a critic, which begins as a copy of the reward model.
Actor, critic and reward model are adapters of one frozen base; the base alone is the reference.
"""

from __future__ import annotations

import torch

from contracts.preference import PpoParameters
from services.training.adapters import world
from services.training.adapters.answers import read_both
from services.training.adapters.base import load_base
from services.training.adapters.methods.lora import lora_config
from services.training.adapters.ppo.checkpoint import keep_reward, kept_reward
from services.training.adapters.ppo.loop import PpoLoop
from services.training.adapters.ppo.networks import ACTOR, CRITIC, REWARD, Networks
from services.training.adapters.ppo.reward import RewardScale, fit_reward, reward, reward_accuracy
from services.training.adapters.session import Cancelled, Session, Trained, preference_recipe
from services.training.adapters.tokens import Pair, encode_pairs
from services.training.health import RunStopped


def train(session: Session) -> Trained:
    """Fit the reward model to the pairs, then let the policy answer their prompts.

    Raises RunStopped, naming the row, for data that are not pairs.
    """
    plan, say = session.plan, session.channel.working
    recipe = plan.recipe
    lora, preference = preference_recipe(recipe)
    if world.size() > 1:
        raise RunStopped(
            "method_unavailable", "ppo trains in one process", "start the trainer without torchrun"
        )
    ppo, beta = preference.ppo or PpoParameters(), preference.beta

    rows, held = read_both(session)

    say("loading the base")
    model, tokenizer = load_base(plan)

    say("tokenizing the dataset")
    pairs = encode_pairs(tokenizer, rows, max_length=recipe.train.max_length)
    held_out = encode_pairs(tokenizer, held, max_length=recipe.train.max_length)
    if not pairs.examples:
        raise RunStopped(
            "dataset_missing",
            f"no training row is left: {pairs.too_long} exceed max_length",
            "raise method.train.max_length, or check the dataset",
        )

    say("adding actor, critic and reward model")
    config = lora_config(lora)
    half = recipe.train.precision == "bfloat16"
    networks = Networks(model, config, half=half, seed=recipe.train.seed)
    scale = kept_reward(session.work, networks)
    if scale is None:
        scale = _reward_model(session, networks, ppo, pairs.examples, tokenizer.pad_token_id)
    networks.load(CRITIC, networks.state(REWARD))

    prompts = [pair.prompt_ids for pair in pairs.examples]
    loop = PpoLoop(session, networks, scale, prompts, tokenizer, ppo=ppo, beta=beta)
    say("sampling the first answers")
    resumed_from = loop.run()

    say("measuring the held-out prompts")
    return Trained(
        metrics=_measure(
            networks,
            loop,
            scale,
            held_out.examples,
            size=recipe.train.batch_size,
            pad=tokenizer.pad_token_id,
        ),
        model=networks.only_actor(),
        tokenizer=tokenizer,
        resumed_from=resumed_from,
        train_loss=loop.recent_loss(),
        validation_loss=None,
        tokens_per_s=loop.tokens_per_s,
        rows=len(pairs.examples),
        rows_too_long=pairs.too_long,
    )


def _reward_model(
    session: Session, networks: Networks, ppo: PpoParameters, pairs: list[Pair], pad: int
) -> RewardScale:
    """Fit and keep it. A run cancelled before it is whole fits it again."""
    train = session.plan.recipe.train

    def each(step: int, loss: float) -> None:
        session.channel.working(f"reward model: step {step} of {ppo.reward_steps}, loss {loss:.3f}")
        if session.is_cancelled():
            raise Cancelled

    scale = fit_reward(
        networks,
        pairs,
        steps=ppo.reward_steps,
        batch_size=train.batch_size,
        learning_rate=train.learning_rate,
        seed=train.seed,
        pad=pad,
        each=each,
    )
    keep_reward(session.work, networks, scale)
    return scale


@torch.no_grad()
def _measure(
    networks: Networks,
    loop: PpoLoop,
    scale: RewardScale,
    pairs: list[Pair],
    *,
    size: int,
    pad: int,
) -> dict[str, float]:
    """On held-out prompts: mean reward with the adapter and, as `base_`, without; the KL in nats.

    Also the share of held-out pairs that the reward model ranks right. Empty without pairs.
    """
    if not pairs:
        return {}
    totals = {"reward": 0.0, "base_reward": 0.0, "kl": 0.0}
    for start in range(0, len(pairs), size):
        prompts = [pair.prompt_ids for pair in pairs[start : start + size]]
        networks.model.set_adapter(ACTOR)
        seen = loop.lived(loop.answers(prompts, seed=start)).seen
        networks.model.set_adapter(ACTOR)
        with networks.model.disable_adapter():
            plain = loop.answers(prompts, seed=start)
        totals["reward"] += seen.reward * len(prompts)
        totals["kl"] += seen.kl * len(prompts)
        totals["base_reward"] += float(reward(networks, plain, scale).sum())
    measured = {name: total / len(pairs) for name, total in totals.items()}
    accuracy = reward_accuracy(networks, pairs, size, pad)
    return measured | {"reward_model_accuracy": accuracy}
