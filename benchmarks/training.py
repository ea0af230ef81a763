"""LoRA by our trainer and by plain TRL: tokens per second, loss and peak memory, in one run.

`python benchmarks/training.py [MODEL]` (`--home .sluice` takes the first model under it). Both
train the same rows (prompts of 20 to 300 words, answers of 10 to 60), from the same base, with the
same LoRA, learning rate, schedule, batch and number of steps, one epoch. *Plain* is `SFTTrainer`
as its documentation begins with it: a dataset of `prompt` and `completion`, and every setting that
was not just named at TRL's default. Each side is a process of its own, and they take turns.

Tokens are unpadded. The time is that of the steps alone, without loading; its CPU seconds are
printed beside it, which a busy neighbour disturbs less. The loss is of rows neither side trained
on, by one plain evaluation after the last step. Peak memory is that of the whole process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

GOAL = 1.5
LOSS_TOLERANCE = 0.05
"""Relative: two orders of the same rows end this close together."""
WORDS = ("river", "stone", "letter", "market", "winter", "garden", "signal", "paper", "window")
SIDES = ("ours", "plain")
RATE, RANK, ALPHA = 5e-4, 16, 32


def main() -> int:
    """Print both sides and their ratios. Exit code 1: below the goal."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--home", type=Path, default=Path(".sluice"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--words", type=int, default=300, help="of the longest prompt")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    model = given.model or _first(given.home)
    if model is None:
        print(f"training: no model under {given.home}; `make assets` fetches one")
        return 0
    if given.side:
        _child(given.side, model, given)
        return 0
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(given.rounds):
        for side in SIDES:
            found[side].append(_measure(side, model, given))
            print(f"{side}: {json.dumps(found[side][-1])}", file=sys.stderr, flush=True)
    means = {side: _medians(rounds) for side, rounds in found.items()}
    print("| side | tokens/s | tokens per CPU second | held-out loss | peak memory |")
    print("|---|---|---|---|---|")
    for side, row in means.items():
        print(
            f"| {side} | {row['tokens_per_s']:.0f} | {row['tokens_per_cpu_s']:.0f} "
            f"| {row['loss']:.4f} | {row['peak'] / 1024**3:.2f} GiB |"
        )
    ratio = {name: means["ours"][name] / means["plain"][name] for name in means["ours"]}
    print(
        f"| ours over plain | {ratio['tokens_per_s']:.2f} × | {ratio['tokens_per_cpu_s']:.2f} × "
        f"| {ratio['loss']:.3f} × | {ratio['peak']:.2f} × |"
    )
    fast = ratio["tokens_per_s"] >= GOAL and ratio["peak"] <= 1
    return 0 if fast and abs(ratio["loss"] - 1) <= LOSS_TOLERANCE else 1


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}


def _measure(side: str, model: Path, given: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, str(model), "--side", side]
    command += ["--batch", str(given.batch), "--steps", str(given.steps)]
    command += ["--threads", str(given.threads), "--words", str(given.words)]
    environment = os.environ | {"OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _rows(count: int, seed: int, most_words: int) -> list[dict[str, Any]]:
    """Requests of very different lengths, and answers that repeat part of them."""
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        words = [draw.choice(WORDS) for _ in range(draw.randint(20, most_words))]
        answer = " ".join(words[: draw.randint(10, min(60, len(words)))])
        messages = [{"role": "user", "content": "Repeat the beginning: " + " ".join(words)}]
        rows.append({"id": f"b{seed}-{i}", "messages": messages, "target": answer})
    return rows


def _child(side: str, model: Path, given: argparse.Namespace) -> None:
    import torch

    from services.training.adapters.channel import peak_memory_bytes
    from services.training.adapters.tokens import encode, read_rows

    torch.set_num_threads(given.threads)
    out = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {"train": folder / "train.jsonl", "held": folder / "held.jsonl"}
        for seed, (kind, file) in enumerate(files.items()):
            count = given.batch * given.steps if kind == "train" else 16
            rows = _rows(count, seed, given.words)
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        trainer, tokenizer = {"ours": _ours, "plain": _plain}[side](
            model, files, given.batch, given.steps
        )
        clock = _Clock()
        trainer.add_callback(clock.callback())
        trainer.train()
        peak = peak_memory_bytes()
        examples = {
            kind: [encode(tokenizer, row) for row in read_rows(file)]
            for kind, file in files.items()
        }
    tokens = sum(len(example.input_ids) for example in examples["train"])
    found = {
        "tokens_per_s": tokens / clock.wall_s,
        "tokens_per_cpu_s": tokens / clock.cpu_s,
        "loss": _loss(trainer, examples["held"]),
        "peak": peak,
    }
    print(json.dumps(found), file=out, flush=True)


def _ours(model: Path, files: dict[str, Path], batch: int, steps: int) -> tuple[Any, Any]:
    from contracts.job import Hyperparameters, LoraParameters
    from contracts.training import Recipe
    from services.training.adapters.channel import Channel
    from services.training.adapters.methods.lora import LowRank
    from services.training.adapters.session import Session
    from services.training.adapters.sft import CompletionTrainer
    from services.training.adapters.tokens import encode_file
    from services.training.plan import TrainerPlan
    from shared.models import base_digest, tokenizer_digest
    from shared.precision import precision

    train = Hyperparameters(
        batch_size=batch,
        learning_rate=RATE,
        warmup_share=0,
        checkpoint_every=steps + 1,
        precision=precision(),
    )
    plan = TrainerPlan(
        recipe=Recipe(
            method="lora",
            base=base_digest(model),
            tokenizer=tokenizer_digest(model),
            dataset="sha256:" + "0" * 64,
            lora=LoraParameters(r=RANK, alpha=ALPHA),
            train=train,
            versions={},
        ),
        base=model,
        base_label=model.name,
        train=files["train"],
        steps=steps,
    )
    work = files["train"].parent
    session = Session(work=work, plan=plan, channel=Channel(steps), is_cancelled=lambda: False)
    start = LowRank().start(session)
    corpus = encode_file(start.tokenizer, files["train"], max_length=1024)
    trainer = CompletionTrainer(
        start.model, start.tokenizer, corpus, session, peft_config=start.peft_config
    )
    trainer.args.save_strategy = "no"
    return trainer, start.tokenizer


def _plain(model: Path, files: dict[str, Path], batch: int, steps: int) -> tuple[Any, Any]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    rows = [json.loads(line) for line in files["train"].read_text().splitlines()]
    conversations = [
        {
            "prompt": row["messages"],
            "completion": [{"role": "assistant", "content": row["target"]}],
        }
        for row in rows
    ]
    trainer = SFTTrainer(
        model=str(model),
        args=SFTConfig(
            output_dir=str(files["train"].parent / "out"),
            per_device_train_batch_size=batch,
            max_steps=steps,
            learning_rate=RATE,
            use_cpu=not torch.cuda.is_available(),  # its default is to refuse a CPU
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
        ),
        train_dataset=Dataset.from_list(conversations),
        peft_config=LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    return trainer, AutoTokenizer.from_pretrained(model)


class _Clock:
    """Wall and CPU seconds from the first step's beginning to the last one's end."""

    def __init__(self) -> None:
        self._wall = self._cpu = 0.0
        self.wall_s = self.cpu_s = 0.0

    def start(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def stop(self) -> None:
        self.wall_s, self.cpu_s = time.monotonic() - self._wall, time.process_time() - self._cpu

    def callback(self) -> Any:
        from transformers import TrainerCallback

        def told(act: Callable[[], None]) -> Callable[..., None]:
            return lambda *_args, **_kwargs: act()

        return type(
            "Clock",
            (TrainerCallback,),
            {"on_train_begin": told(self.start), "on_train_end": told(self.stop)},
        )()


def _loss(trainer: Any, examples: list[Any]) -> float:
    """Mean -log p of the answers' tokens, row by row in float32."""
    import torch

    cross_entropy = torch.nn.functional.cross_entropy
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
    total, tokens = 0.0, 0
    with torch.no_grad():
        for example in examples:
            logits = model(input_ids=torch.tensor([example.input_ids])).logits[0, :-1].float()
            labels = torch.tensor(example.labels[1:])
            total += float(cross_entropy(logits, labels, reduction="sum", ignore_index=-100))
            tokens += int((labels != -100).sum())
    return total / tokens


def _first(home: Path) -> Path | None:
    found = sorted((home / "models").glob("*/config.json"))
    return found[0].parent if found else None


if __name__ == "__main__":
    sys.exit(main())
