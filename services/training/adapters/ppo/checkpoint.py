"""What a PPO run keeps on disk: the reward model once, actor, critic and optimizer as it goes.

Random numbers are drawn afresh for each step from seed and step, so they need no keeping.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from services.training.adapters.checkpoints import newest_sealed, prune, seal, step_of
from services.training.adapters.ppo.networks import ACTOR, CRITIC, REWARD, Networks
from services.training.adapters.ppo.reward import RewardScale
from services.training.policy_health import PolicyStep

REWARD_FOLDER = "reward-model"


def keep_reward(work: Path, networks: Networks, scale: RewardScale) -> None:
    """Keep the finished reward model."""
    folder = work / REWARD_FOLDER
    folder.mkdir(exist_ok=True)
    save_file(networks.state(REWARD), folder / "reward.safetensors")
    (folder / "scale.json").write_text(json.dumps(asdict(scale)))
    seal(folder)


def kept_reward(work: Path, networks: Networks) -> RewardScale | None:
    """Load the reward model that was kept; None if there is none whole."""
    folder = work / REWARD_FOLDER
    if not (folder / "sealed.json").is_file():
        return None
    networks.load(REWARD, load_file(folder / "reward.safetensors"))
    return RewardScale(**json.loads((folder / "scale.json").read_text()))


def save(
    root: Path,
    step: int,
    networks: Networks,
    optimizer: torch.optim.Optimizer,
    history: list[PolicyStep],
    losses: list[float],
) -> None:
    """The state after `step` steps, durably; older ones go."""
    folder = root / f"checkpoint-{step}"
    if newest_sealed(root) == folder:
        return
    folder.mkdir(parents=True, exist_ok=True)
    save_file(networks.state(ACTOR), folder / "actor.safetensors")
    save_file(networks.state(CRITIC), folder / "critic.safetensors")
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    state = {"history": [asdict(seen) for seen in history], "losses": losses}
    (folder / "state.json").write_text(json.dumps(state))
    seal(folder)
    prune(root)


def restore(
    root: Path, networks: Networks, optimizer: torch.optim.Optimizer
) -> tuple[int, list[PolicyStep], list[float]] | None:
    """Load the newest whole checkpoint: its step, its history and losses. None: from the start."""
    prune(root)
    folder = newest_sealed(root)
    if folder is None:
        return None
    networks.load(ACTOR, load_file(folder / "actor.safetensors"))
    networks.load(CRITIC, load_file(folder / "critic.safetensors"))
    optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
    state = json.loads((folder / "state.json").read_text())
    return step_of(folder), [PolicyStep(**seen) for seen in state["history"]], state["losses"]
