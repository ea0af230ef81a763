"""Training: a dataset and a recipe in, an adapter artifact out."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, JsonValue

from contracts.base import Digest, Event, Frozen, Service
from contracts.distillation import DistillationParameters
from contracts.job import Hyperparameters, LoraParameters, Parameters
from contracts.preference import PreferenceParameters

StopReason = Literal[
    "out_of_memory",
    "not_a_number",
    "gradient_explosion",
    "policy_collapse",
    "reward_hacking",
    "likelihood_displacement",
    "logit_saturation",
    "base_missing",
    "dataset_missing",
    "disk_full",
    "trainer_crashed",
    "method_unavailable",
]


class Recipe(Frozen):
    """All that determines an adapter. Its digest names the training work folder."""

    method: str
    base: Digest
    """Digest of the base checkpoint's weights."""
    tokenizer: Digest
    dataset: Digest
    """The dataset card."""
    lora: LoraParameters | None
    parameters: Parameters | None = None
    """Which weights move, where the method's name does not say it."""
    preference: PreferenceParameters | None = None
    distillation: DistillationParameters | None = None
    train: Hyperparameters
    versions: dict[str, str]
    """Library → version."""


class Fingerprint(Frozen):
    """What the trained model said at the end of training, for *served equals trained* (G2).

    For one prompt: the token ids the chat template renders to, and the highest next-token
    log-probabilities after the last of them.
    """

    messages: tuple[dict[str, JsonValue], ...]
    tools: tuple[dict[str, JsonValue], ...] = ()
    prompt_token_ids: tuple[int, ...]
    top_token_ids: tuple[int, ...]
    top_logprobs: tuple[float, ...]
    """Natural log-probabilities, float32, same order as `top_token_ids`."""
    base_top_logprobs: tuple[float, ...]
    """The frozen base's log-probabilities of the same token ids."""


class TrainingStarted(Event):
    """Training began (or, after a crash, resumed: see `AdapterTrained.resumed_from`)."""

    service: ClassVar[Service] = Service.TRAINING
    fact: ClassVar[str] = "started"
    recipe: Digest
    steps: int
    memory_estimate_bytes: dict[str, int]
    """Part (`weights`, `gradients`, `optimizer`, `activations`) → bytes (D8)."""


class AdapterTrained(Event):
    """The candidate adapter exists in the artifact store."""

    service: ClassVar[Service] = Service.TRAINING
    fact: ClassVar[str] = "trained"
    adapter: Digest
    """A tree: `adapter_model.safetensors` and `.json` files: config, fingerprints, recipe."""
    recipe: Digest
    base: Digest
    tokenizer: Digest
    weights: Digest
    """Digest of `adapter_model.safetensors`: the same job twice gives the same one."""
    steps: int
    resumed_from: int | None = None
    train_loss: float
    validation_loss: float | None
    metrics: dict[str, float] = Field(default_factory=dict)
    """The method's own measures on the validation rows (`preference_accuracy` and so on)."""
    tokens_per_s: float
    peak_memory_bytes: int
    duration_s: float


class TrainingStopped(Event):
    """Training ended without an adapter, for a named reason. The last checkpoint is kept."""

    service: ClassVar[Service] = Service.TRAINING
    fact: ClassVar[str] = "stopped"
    reason: StopReason
    message: str
    mend: str
    step: int = Field(default=0, ge=0)
