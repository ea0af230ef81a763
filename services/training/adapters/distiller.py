"""Distillation from logits: a completion trainer whose targets are a teacher's probabilities too.

TRL's DistillationTrainer is on-policy: the student writes the completions. Here they are the rows'
own, so that curated answers are what both models are asked about, and the hard loss has a target.
Batches, health, seals and reports are the session's, as in every method.

Both models score the positions that predict a completion token, and no others.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812  (the field's spelling)

from contracts.distillation import DistillationParameters
from services.training.adapters.completion_head import add_completion_logits
from services.training.adapters.methods.lora import lora_config
from services.training.adapters.session import Session
from services.training.adapters.sft import CompletionTrainer
from services.training.adapters.tokens import IGNORED, Corpus


def softened_kl(
    student_NV: torch.Tensor, teacher_NV: torch.Tensor, temperature: float
) -> torch.Tensor:
    """T^2 KL(teacher || student) of each position, both softened by T; shape (N,).

    The gradient of the softened term shrinks as 1 / T^2, so T^2 keeps its weight against the hard
    loss whatever T is (Hinton et al., 2015, section 2). Columns past the shorter vector are padding
    of a vocabulary, which one model has and the other has not.
    """
    width = min(student_NV.shape[-1], teacher_NV.shape[-1])
    ours_NV = (student_NV[:, :width] / temperature).log_softmax(-1)
    theirs_NV = (teacher_NV[:, :width] / temperature).log_softmax(-1)
    kl_N = F.kl_div(ours_NV, theirs_NV, reduction="none", log_target=True).sum(-1)
    return temperature**2 * kl_N


class DistillingTrainer(CompletionTrainer):
    """CompletionTrainer with a teacher, for one session."""

    reported: ClassVar = {"soft_loss": "soft_loss", "hard_loss": "hard_loss"}

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        corpus: Corpus,
        session: Session,
        *,
        teacher: Any,
        distillation: DistillationParameters,
    ) -> None:
        lora = session.plan.recipe.lora
        assert lora is not None
        super().__init__(model, tokenizer, corpus, session, peft_config=lora_config(lora))
        self._distillation = distillation
        self._teacher = teacher.to(self.args.device)
        add_completion_logits(self._teacher)
        add_completion_logits(self.network.get_base_model())

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The mixed loss per completion token; see `methods.logit_distillation`."""
        student_NV, teacher_NV, labels_N = self._both(model, inputs)
        share, temperature = self._distillation.soft_share, self._distillation.temperature
        soft_N = softened_kl(student_NV, teacher_NV, temperature)
        hard_N = F.cross_entropy(student_NV, labels_N, reduction="none")
        items = labels_N.numel() if num_items_in_batch is None else num_items_in_batch
        loss = (share * soft_N + (1 - share) * hard_N).sum() / max(1, int(items))
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # the gradients are averaged over them
        if self.network.training:
            seen = self._metrics["train"]
            seen["soft_loss"].append(float(soft_N.detach().mean()))
            seen["hard_loss"].append(float(hard_N.detach().mean()))
            tokens = self.accelerator.gather_for_metrics(inputs["attention_mask"].sum()).sum()
            self._total_train_tokens += int(tokens)
            seen["num_tokens"] = [self._total_train_tokens]
        return (loss, {}) if return_outputs else loss

    def _both(
        self, model: Any, inputs: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits of student and teacher, (N, V), and the N labels they predict."""
        labels_BT = inputs["labels"]
        read = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            teacher_NV = self._teacher(**read, completion_logits=labels_BT)
        student_NV = model(**read, completion_logits=labels_BT)
        shifted = labels_BT[:, 1:]
        return student_NV, teacher_NV, shifted[shifted != IGNORED]

    @torch.no_grad()
    def measure(self, corpus: Corpus) -> dict[str, float]:
        """Per completion token of `corpus`, without softening; empty if there is no row.

        `kl` to the teacher and share of tokens on whose likeliest both agree (`agreement`), with
        the adapter and, as `base_`, without it; `loss` of the student and `teacher_loss` on the
        rows' answers: with their sizes, a pilot for `sluice scaling`.
        """
        self.network.eval()
        totals = dict.fromkeys(
            ("loss", "kl", "base_kl", "teacher_loss", "agreement", "base_agreement"), 0.0
        )
        tokens, size = 0, self.args.per_device_train_batch_size
        examples = sorted(corpus.examples, key=lambda example: len(example.input_ids))
        for start in range(0, len(examples), size):
            collate: Any = self.data_collator
            rows = [
                {"input_ids": e.input_ids, "labels": e.labels}
                for e in examples[start : start + size]
            ]
            inputs: Any = self._prepare_inputs(collate(rows))
            student_NV, teacher_NV, labels_N = self._both(self.network, inputs)
            with self.network.disable_adapter():
                base_NV, _, _ = self._both(self.network, inputs)
            tokens += labels_N.numel()
            totals["loss"] += float(F.cross_entropy(student_NV, labels_N, reduction="sum"))
            totals["teacher_loss"] += float(F.cross_entropy(teacher_NV, labels_N, reduction="sum"))
            for prefix, logits_NV in (("", student_NV), ("base_", base_NV)):
                totals[f"{prefix}kl"] += float(softened_kl(logits_NV, teacher_NV, 1.0).sum())
                agreed = logits_NV.argmax(-1) == teacher_NV.argmax(-1)
                totals[f"{prefix}agreement"] += int(agreed.sum())
        return {name: total / tokens for name, total in totals.items()} if tokens else {}
