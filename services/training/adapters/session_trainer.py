"""What every TRL trainer of ours has in common: our batches, health, seals and reports.

Ours: length-bucketed batches whose order is a function of seed and epoch, the head on completion
positions only, health checks before each optimizer step, sealed checkpoints, reports. The
optimisation is the library's: AdamW, linear warm-up and decay, gradients clipped to norm 1.

Precision is float32 unless the recipe says bfloat16: then the matrix products run under autocast
(weights, gradients and optimizer stay float32). Faster on a CPU with AVX512-BF16 or AMX, slower on
one without. Digests repeat either way.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from datasets import Dataset
from peft import PeftConfig, PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback

from services.training.adapters import world
from services.training.adapters.channel import peak_memory_bytes
from services.training.adapters.checkpoints import newest_sealed, prune, seal, step_of
from services.training.adapters.completion_head import add_completion_head
from services.training.adapters.session import Cancelled, Session
from services.training.adapters.sharding import gathered, load_whole, shard_on_cpus
from services.training.bucketing import bucketed_order
from services.training.health import RunHealth, RunStopped
from services.training.plan import TrainerPlan, learning_rate_share
from services.training.reports import Step

RECENT_STEPS = 10


def shared_arguments(plan: TrainerPlan, checkpoints: Path) -> dict[str, Any]:
    """The recipe's hyperparameters in TRL's words, for the config of any of its trainers.

    Raises RunStopped for a paged optimizer where there is no CUDA GPU to page from.
    """
    train = plan.recipe.train
    if train.optimizer == "paged_adamw" and not torch.cuda.is_available():
        raise RunStopped(
            "method_unavailable",
            "a paged optimizer moves its state out of a GPU's memory; this machine has no CUDA GPU",
            "set method.train.optimizer to adamw",
        )
    return {
        "output_dir": str(checkpoints),
        "max_steps": plan.steps,
        "learning_rate": train.learning_rate,
        "per_device_train_batch_size": world.share_of(train.batch_size),
        "gradient_accumulation_steps": train.gradient_accumulation,
        "max_grad_norm": 1.0,
        "weight_decay": 0.0,
        "seed": train.seed,
        "data_seed": train.seed,
        "save_strategy": "steps",
        "save_steps": train.checkpoint_every,
        "save_total_limit": None,  # `prune` counts complete ones only
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "optim": "paged_adamw_32bit" if train.optimizer == "paged_adamw" else "adamw_torch",
        "disable_tqdm": True,
        "bf16": train.precision == "bfloat16",
        "ddp_backend": "gloo" if world.size() > 1 and not torch.cuda.is_available() else None,
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
    }


class BucketSampler(Sampler[int]):
    """`bucketed_order` of the epoch; accelerate sets the epoch, also after a resume."""

    def __init__(self, lengths: list[int], batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        order = bucketed_order(self._lengths, self._batch_size, seed=self._seed, epoch=self._epoch)
        return iter(order)


class SessionTrainer(Trainer):
    """Stands before a TRL trainer in a class's bases, and carries out one session."""

    reported: ClassVar[Mapping[str, str]] = {}
    """The library's metric → its name in step reports."""

    def __init__(
        self,
        session: Session,
        *,
        model: Any,
        tokenizer: Any,
        dataset: Dataset,
        lengths: list[int],
        too_long: int,
        arguments: Any,
        peft_config: PeftConfig | None,
    ) -> None:
        if not lengths:
            raise RunStopped(
                "dataset_missing",
                f"no training row is left: {too_long} exceed max_length",
                "raise method.train.max_length, or check the dataset",
            )
        self._session = session
        self._lengths = lengths
        self._health = RunHealth()
        self.tokens_per_s = 0.0
        library: dict[str, Any] = {"peft_config": peft_config}  # TRL's trainers take one
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=dataset,
            processing_class=tokenizer,
            callbacks=[_Reports(self, session)],
            **library,
        )
        self.remove_callback(PrinterCallback)
        for weight in self.network.parameters():  # TRL halves an adapter over 4-bit weights
            weight.data = weight.data.float() if weight.requires_grad else weight.data
        add_completion_head(self.network.get_base_model() if peft_config else self.network)

    @property
    def network(self) -> Any:
        """The model being trained."""
        return self.model

    def run(self) -> int | None:
        """Train to the plan's last step, from the newest complete checkpoint if there is one.

        Returns the step it resumed from. Raises RunStopped or Cancelled.
        """
        root, plan = self._session.checkpoints, self._session.plan
        root.mkdir(parents=True, exist_ok=True)
        if world.rank() == 0:
            prune(root)
        self.accelerator.wait_for_everyone()
        checkpoint = newest_sealed(root)
        if checkpoint is not None and step_of(checkpoint) >= plan.steps:
            self._load_finished(checkpoint)
        else:
            self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            # what is measured from here on is the adapter in float32, as it is saved
            self.accelerator.unwrap_model(self.network, keep_fp32_wrapper=False)
        if world.anywhere(self._session.is_cancelled()):
            raise Cancelled
        return step_of(checkpoint) if checkpoint else None

    def _load_finished(self, checkpoint: Path) -> None:
        """A run killed after its last step: `train` would take one step too many."""
        if world.sharded():
            load_whole(self.network, checkpoint)
        elif isinstance(self.network, PeftModel):
            weights = load_file(checkpoint / "adapter_model.safetensors")
            set_peft_model_state_dict(self.network, weights)
        else:
            self._load_from_checkpoint(str(checkpoint))
        self.state = self.state.load_from_json(str(checkpoint / "trainer_state.json"))

    def release(self) -> None:
        """Let go of gradients and moments once the last step is taken: the weights are enough."""
        self.network.zero_grad(set_to_none=True)
        self.optimizer = self.lr_scheduler = None
        self.accelerator.free_memory()

    def recent_loss(self) -> float:
        """Mean training loss over the last steps, those before a resume included."""
        losses = [entry["loss"] for entry in self.state.log_history if "loss" in entry]
        recent = losses[-RECENT_STEPS:]
        return float(sum(recent) / len(recent))

    # What follows overrides the library's steps.

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        shard_on_cpus(self.accelerator)
        self.is_fsdp_enabled = getattr(self.accelerator.state, "fsdp_plugin", None) is not None

    def _get_train_sampler(self, train_dataset: Any = None) -> BucketSampler:
        train = self._session.plan.recipe.train
        return BucketSampler(self._lengths, train.batch_size, train.seed)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        rate = partial(
            learning_rate_share,
            steps=num_training_steps,
            warmup_share=self._session.plan.recipe.train.warmup_share,
        )
        optimizer = self.optimizer if optimizer is None else optimizer
        self.lr_scheduler = LambdaLR(optimizer, rate)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        self._health.check_loss(self.state.global_step + 1, float(loss))
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]
        norm = gathered(norm)
        self._health.check_gradient(self.state.global_step + 1, float(norm))
        return norm

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        folder = self._session.checkpoints / f"checkpoint-{step}"
        if newest_sealed(self._session.checkpoints) == folder:
            return
        self.accelerator.wait_for_everyone()
        self._session.channel.working(f"saving the checkpoint of step {step}")
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if world.rank() == 0:
            seal(folder)
            prune(self._session.checkpoints)
        self.accelerator.wait_for_everyone()

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: the registry writes the adapter's card."""


class _Reports(TrainerCallback):
    """Step reports out, cancel in."""

    def __init__(self, trainer: SessionTrainer, session: Session) -> None:
        self._trainer, self._session = trainer, session
        self._began_s, self._first = 0.0, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began_s, self._first = time.monotonic(), state.global_step
        step = state.global_step
        self._session.channel.working(f"training step {step + 1} of {state.max_steps}", step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if world.anywhere(self._session.is_cancelled()):
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs: dict[str, float] = kwargs["logs"]
        if "loss" not in logs:
            return
        elapsed_s = time.monotonic() - self._began_s
        per_step_s = elapsed_s / max(1, state.global_step - self._first)
        self._trainer.tokens_per_s = logs["num_tokens"] / elapsed_s
        self._session.channel.send(
            Step(
                step=state.global_step,
                steps=state.max_steps,
                loss=logs["loss"],
                grad_norm=logs["grad_norm"],
                learning_rate=logs["learning_rate"],
                tokens_per_s=self._trainer.tokens_per_s,
                eta_s=per_step_s * (state.max_steps - state.global_step),
                peak_memory_bytes=peak_memory_bytes(),
                metrics={
                    name: logs[key] for key, name in self._trainer.reported.items() if key in logs
                },
            )
        )
