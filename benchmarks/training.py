"""LoRA by our trainer and by plain TRL: tokens per second, loss and peak memory, in one run.

`python benchmarks/training.py [MODEL]` (`--home .sluice` takes the first model under it). All sides
train the same rows (prompts of 20 to `--words` words, answers of 10 to 60), from the same base and
the same first A, with the same LoRA, learning rate, schedule, batch and number of steps, one epoch.

- *ours*: the training service's own trainer.
- *plain*: `SFTTrainer` as its documentation begins with it: a dataset of `prompt` and `completion`,
  and every setting that was not just named at TRL's default.
- *reordered*: plain, but that it takes the rows in our order. It differs from ours by
  the code alone, so its loss decides whether the code learns the same (`SAME_TOLERANCE`). Ours over
  plain differs by the order too, as one seed differs from another (`LOSS_TOLERANCE`).

Each side is a process of its own, and they take turns. A seed draws the rows, their order and A.
Tokens are unpadded. The time is that of the steps alone, without loading; its CPU seconds are
printed beside it, which a busy neighbour disturbs less. The loss is of rows no side trained on, by
one plain evaluation in float32 after the last step. Peak memory is that of the whole process.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

GOAL = 1.5
SAME_TOLERANCE = 0.01
"""Relative: two programs that take the same steps end this close together, in bfloat16."""
LOSS_TOLERANCE = 0.05
"""Relative, of the mean over the seeds: two orders of the same rows end this close together."""
HELD_OUT = 24
HELD_OUT_SEED = 1_000
WORDS = ("river", "stone", "letter", "market", "winter", "garden", "signal", "paper", "window")
OURS, PLAIN, SAME = SIDES = ("ours", "plain", "reordered")
RATE, RANK, ALPHA = 5e-4, 16, 32
Found = dict[str, float]


def main() -> int:
    """Print all sides and the ratios. Exit code 1: a goal or a tolerance is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--home", type=Path, default=Path(".sluice"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--words", type=int, default=120, help="of the longest prompt")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--against", choices=SIDES[1:], nargs="+", default=SIDES[1:])
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    model = given.model or _first(given.home)
    if model is None:
        print(f"training: no model under {given.home}; `make assets` fetches one")
        return 0
    if given.side:
        _child(given.side, model, given)
        return 0
    found: dict[str, list[Found]] = {side: [] for side in (OURS, *given.against)}
    for seed in given.seeds:
        for side in found:
            found[side].append(_measure(side, model, given, seed))
            print(f"{side}, seed {seed}: {json.dumps(found[side][-1])}", file=sys.stderr)
    return 0 if _print(found, given) else 1


def _print(found: dict[str, list[Found]], given: argparse.Namespace) -> bool:
    """The tables, and whether every goal is met."""
    print(f"{given.steps} steps of {given.batch} rows, seeds {given.seeds}, {HELD_OUT} held out")
    print("| side | tokens/s | tokens per CPU second | held-out loss | peak memory |")
    print("|---|---|---|---|---|")
    means = {
        side: {name: statistics.mean(row[name] for row in rows) for name in rows[0]}
        for side, rows in found.items()
    }
    for side, row in means.items():
        losses = ", ".join(f"{one['loss']:.4f}" for one in found[side])
        print(
            f"| {side} | {row['tokens_per_s']:.0f} | {row['tokens_per_cpu_s']:.0f} "
            f"| {losses} | {row['peak'] / 1024**3:.2f} GiB |"
        )
    for other in given.against:
        ratio = {name: means[OURS][name] / means[other][name] for name in means[OURS]}
        print(
            f"| ours over {other} | {ratio['tokens_per_s']:.2f} × "
            f"| {ratio['tokens_per_cpu_s']:.2f} × | {ratio['loss']:.4f} × | {ratio['peak']:.2f} × |"
        )
    before = means[OURS]["loss_before"]
    print(f"held-out loss of the base: {before:.4f}")
    goals: dict[str, bool] = {}
    ours = means[OURS]
    if (plain := means.get(PLAIN)) is not None:
        faster = ours["tokens_per_s"] >= GOAL * plain["tokens_per_s"]
        goals[f"tokens/s of ours at least {GOAL} × plain"] = faster
        goals["peak memory of ours no higher than plain"] = ours["peak"] <= plain["peak"]
        apart = abs(ours["loss"] / plain["loss"] - 1)
        goals[f"mean loss within {LOSS_TOLERANCE:.0%} of plain"] = apart <= LOSS_TOLERANCE
    if SAME in found:
        pairs = zip(found[OURS], found[SAME], strict=True)
        apart = max(abs(a["loss"] / b["loss"] - 1) for a, b in pairs)
        goals[f"loss within {SAME_TOLERANCE:.0%} of reordered, each seed"] = apart <= SAME_TOLERANCE
    for goal, met in goals.items():
        print(f"{'met ' if met else 'MISSED'} {goal}")
    return all(goals.values())


def _measure(side: str, model: Path, given: argparse.Namespace, seed: int) -> Found:
    command = [sys.executable, __file__, str(model), "--side", side, "--seeds", str(seed)]
    command += ["--batch", str(given.batch), "--steps", str(given.steps)]
    command += ["--threads", str(given.threads), "--words", str(given.words)]
    environment = os.environ | {"OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    result: Found = json.loads(done.stdout.splitlines()[-1])
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
    seed = given.seeds[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {"train": folder / "train.jsonl", "held": folder / "held.jsonl"}
        rows = {
            "train": _rows(given.batch * given.steps, seed, given.words),
            "held": _rows(HELD_OUT, HELD_OUT_SEED, given.words),
        }
        for kind, file in files.items():
            file.write_text("".join(json.dumps(row) + "\n" for row in rows[kind]))
        build = _ours if side == OURS else _plain
        trainer, tokenizer = build(model, files, given, seed, our_batches=side == SAME)
        _same_start(trainer.model, seed)
        examples = {
            kind: [encode(tokenizer, row) for row in read_rows(file)]
            for kind, file in files.items()
        }
        before = _loss(trainer, examples["held"])
        clock = _Clock()
        trainer.add_callback(clock.callback())
        trainer.train()
        peak = peak_memory_bytes()
    tokens = sum(len(example.input_ids) for example in examples["train"])
    found = {
        "tokens_per_s": tokens / clock.wall_s,
        "tokens_per_cpu_s": tokens / clock.cpu_s,
        "loss": _loss(trainer, examples["held"]),
        "loss_before": before,
        "peak": peak,
    }
    print(json.dumps(found), file=out, flush=True)


def _same_start(model: Any, seed: int) -> None:
    """A as PEFT draws it, but of the seed alone; B is zero."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    for name, weight in sorted(model.named_parameters()):
        if "lora_A" in name:
            torch.nn.init.kaiming_uniform_(weight, a=5**0.5, generator=draw)


def _ours(
    model: Path,
    files: dict[str, Path],
    given: argparse.Namespace,
    seed: int,
    *,
    our_batches: bool,
) -> tuple[Any, Any]:
    """Our batches are ours anyway."""
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
        batch_size=given.batch,
        learning_rate=RATE,
        warmup_share=0,
        checkpoint_every=given.steps + 1,
        precision=precision(),
        seed=seed,
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
        steps=given.steps,
    )
    work = files["train"].parent
    session = Session(
        work=work, plan=plan, channel=Channel(given.steps), is_cancelled=lambda: False
    )
    start = LowRank().start(session)
    corpus = encode_file(start.tokenizer, files["train"], max_length=1024)
    trainer = CompletionTrainer(
        start.model, start.tokenizer, corpus, session, peft_config=start.peft_config
    )
    trainer.args.save_strategy = "no"
    return trainer, start.tokenizer


def _plain(
    model: Path,
    files: dict[str, Path],
    given: argparse.Namespace,
    seed: int,
    *,
    our_batches: bool,
) -> tuple[Any, Any]:
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
    tokenizer = AutoTokenizer.from_pretrained(model)
    kind = (
        _in_our_order(tokenizer, files["train"], given.batch, seed) if our_batches else SFTTrainer
    )
    trainer = kind(
        model=str(model),
        args=SFTConfig(
            output_dir=str(files["train"].parent / "out"),
            per_device_train_batch_size=given.batch,
            max_steps=given.steps,
            learning_rate=RATE,
            seed=seed,
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
    return trainer, tokenizer


def _in_our_order(tokenizer: Any, train: Path, batch: int, seed: int) -> Any:
    """SFTTrainer, but for the order of the rows."""
    from torch.utils.data import Sampler
    from trl.trainer.sft_trainer import SFTTrainer

    from services.training.adapters.tokens import encode, read_rows
    from services.training.bucketing import bucketed_order

    lengths = [len(encode(tokenizer, row).input_ids) for row in read_rows(train)]
    order = bucketed_order(lengths, batch, seed=seed, epoch=0)

    class Ordered(Sampler[int]):
        def __iter__(self) -> Iterator[int]:
            return iter(order)

        def __len__(self) -> int:
            return len(order)

    class OrderedTrainer(SFTTrainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return Ordered()

    return OrderedTrainer


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
