"""The memory preflight against what training really takes: SFT, LoRA and QLoRA on two models.

`python benchmarks/memory.py MODEL` (a transformers checkpoint; `--home .sluice` takes the first
under it). Each case trains three steps (`--steps`) in a process of its own, with the trainer,
batches and head of the training service, on rows of random tokens: all of one length, or of any
length from `--shortest` on. *Measured* is that process's peak resident size;
*baseline* what it held before the first weight. The smaller model is a Llama of random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from contracts.job import Hyperparameters, LoraParameters
from services.training.adapters.process import has_accelerator
from services.training.bucketing import PART_TOKENS, largest_part
from services.training.memory import ModelDimensions, estimate

METHODS = ("sft", "lora", "qlora")
TOLERANCE = 0.25
GIB = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One training to measure."""

    model: str
    method: str
    precision: str
    batch_size: int
    length: int
    completion: int
    shortest: int
    steps: int

    def sizes(self) -> list[tuple[int, int]]:
        """Tokens and scored tokens of each row; of a shorter row as large a share is scored."""
        draw = random.Random(1)
        lengths = [
            draw.randint(self.shortest, self.length) for _ in range(self.batch_size * self.steps)
        ]
        return [(n, max(1, n * self.completion // self.length)) for n in lengths]


def main() -> int:
    """Print a table of estimate and measurement. Exit code 1: an estimate is off by over 25 %."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--home", type=Path, default=Path(".sluice"))
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--precision", nargs="+", default=["float32"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=384)
    parser.add_argument("--completion", type=int, default=64)
    parser.add_argument("--shortest", type=int, help="tokens of the shortest row (--length)")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--only", choices=("large", "small"))
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        _child(Case(**json.loads(given.case)))
        return 0
    model = given.model or _first(given.home)
    if model is None:
        print(f"memory: no model under {given.home}; `make assets` fetches one")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        small = _small_llama(model, Path(folder) / "Llama-small")
        models = {"large": model, "small": small}
        chosen = [models[given.only]] if given.only else list(models.values())
        off = 0
        print("| model | method | precision | estimate | measured | ratio | without baseline |")
        print("|---|---|---|---|---|---|---|")
        for path in chosen:
            for method in given.methods:
                for precision in given.precision:
                    case = Case(
                        model=str(path),
                        method=method,
                        precision=precision,
                        batch_size=given.batch,
                        length=given.length,
                        completion=given.completion,
                        shortest=given.shortest or given.length,
                        steps=given.steps,
                    )
                    off += not _compare(case)
    return 1 if off else 0


def _compare(case: Case) -> bool:
    parts = _estimate(case)
    found = _measure(case)
    total, peak, baseline = sum(parts.values()), found["peak"], found["baseline"]
    ratio = total / peak
    ours, theirs = total - parts["runtime"], peak - baseline
    print(
        f"| {Path(case.model).name}, {found['parameters'] / 1e6:.0f} M | {case.method} "
        f"| {case.precision} | {total / GIB:.2f} GiB | {peak / GIB:.2f} GiB | {ratio:.2f} "
        f"| {ours / GIB:.2f} / {theirs / GIB:.2f} = {ours / theirs:.2f} |",
        flush=True,
    )
    return max(abs(ratio - 1), abs(ours / theirs - 1)) <= TOLERANCE


def _estimate(case: Case) -> dict[str, int]:
    config = json.loads((Path(case.model) / "config.json").read_text())
    sizes = case.sizes()
    return estimate(
        ModelDimensions.of(config),
        method=case.method,
        lora=None if case.method == "sft" else LoraParameters(),
        batch_size=case.batch_size,
        length=max(length for length, _ in sizes),
        completion_length=max(scored for _, scored in sizes),
        precision="bfloat16" if case.precision == "bfloat16" else "float32",
        part=None if has_accelerator() else largest_part(sizes, case.batch_size, PART_TOKENS),
    )


def _measure(case: Case) -> dict[str, int]:
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    environment = os.environ | {"OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    result: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return result


def _child(case: Case) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    from contracts.training import Recipe
    from services.training.adapters.channel import Channel, peak_memory_bytes
    from services.training.adapters.methods.lora import lora_config
    from services.training.adapters.session import Session
    from services.training.adapters.sft import CompletionTrainer
    from services.training.adapters.tokens import IGNORED, Corpus, Example
    from services.training.plan import TrainerPlan

    torch.set_num_threads(2)
    out = os.fdopen(os.dup(1), "w")
    digest = "sha256:" + "0" * 64
    folder = Path(case.model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    baseline = peak_memory_bytes()
    extra: dict[str, Any] = {}
    if case.method == "qlora":
        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, case.precision),
        )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **extra)
    parameters = ModelDimensions.of(json.loads((folder / "config.json").read_text())).parameters
    draw = random.Random(0)
    rows = []
    for length, scored in case.sizes():
        ids = [draw.randrange(100, len(tokenizer)) for _ in range(length)]
        asked = length - scored
        rows.append(Example(ids, [IGNORED] * asked + ids[asked:]))
    lora = None if case.method == "sft" else LoraParameters()
    with tempfile.TemporaryDirectory() as work:
        plan = TrainerPlan(
            recipe=Recipe(
                method=case.method,
                base=digest,
                tokenizer=digest,
                dataset=digest,
                lora=lora,
                train=Hyperparameters(
                    batch_size=case.batch_size,
                    checkpoint_every=case.steps + 1,
                    precision=case.precision,
                ),
                versions={},
            ),
            base=folder,
            base_label=folder.name,
            train=folder,
            steps=case.steps,
        )
        session = Session(
            work=Path(work), plan=plan, channel=Channel(case.steps), is_cancelled=lambda: False
        )
        peft_config = lora_config(lora) if lora else None
        trainer = CompletionTrainer(
            model, tokenizer, Corpus(rows, 0), session, peft_config=peft_config
        )
        trainer.args.save_strategy = "no"
        trainer.train()
    found = {
        "peak": peak_memory_bytes(),
        "baseline": baseline,
        "parameters": parameters,
    }
    print(json.dumps(found), file=out, flush=True)


def _first(home: Path) -> Path | None:
    found = sorted((home / "models").glob("*/config.json"))
    return found[0].parent if found else None


def _small_llama(like: Path, folder: Path) -> Path:
    """A Llama of 38 M parameters with the tokenizer of `like`."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(like)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=12,
        num_attention_heads=6,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    sys.exit(main())
