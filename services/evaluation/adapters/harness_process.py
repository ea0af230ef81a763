"""The process that runs lm-evaluation-harness: `python -m … plan.json items.jsonl`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def main(plan_file: Path, log: Path) -> None:
    """Run the plan and write one line per item: task, item, skill, correct, output."""
    plan = json.loads(plan_file.read_text(encoding="utf-8"))

    import lm_eval

    results = lm_eval.simple_evaluate(
        model="local-completions",
        model_args={
            "model": plan["model"],
            "base_url": plan["base_url"],
            "tokenizer": plan["tokenizer"],
            "tokenizer_backend": "huggingface",
            "tokenized_requests": True,
            "num_concurrent": plan["concurrency"],
            "max_length": plan["maximum_length"],
            "max_retries": 5,
        },
        batch_size=plan["batch_size"],
        tasks=plan["tasks"],
        limit=plan["limit"],
        task_manager=_task_manager(plan["suites"], plan["tasks"]),
        bootstrap_iters=0,
        log_samples=True,
    )
    part = log.with_suffix(".part")
    with part.open("w", encoding="utf-8") as out:
        for item in _items(results["samples"]):
            out.write(json.dumps(item, ensure_ascii=False) + "\n")
    part.replace(log)


def _task_manager(suites: list[str], tasks: list[str]) -> Any:
    """Only the given suites where they suffice: indexing the harness's own thousands is slow."""
    from lm_eval.tasks import TaskManager

    ours = TaskManager(include_path=suites, include_defaults=False)
    return ours if set(tasks) <= set(ours.all_tasks) else TaskManager(include_path=suites)


def _items(samples: dict[str, list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for task in sorted(samples):
        for sample in sorted(samples[task], key=lambda s: int(s["doc_id"])):
            yield {
                "task": task,
                "item": str(sample["doc_id"]),
                "skill": str(sample["doc"].get("skill") or task),
                "correct": _correct(sample),
                "output": json.dumps(sample["filtered_resps"], ensure_ascii=False)[:500],
            }


def _correct(sample: dict[str, Any]) -> float:
    """The item's own first metric: `acc` or `exact_match` where it has one."""
    names = sample.get("metrics") or [k for k, v in sample.items() if isinstance(v, int | float)]
    first = next((n for n in ("acc", "exact_match") if n in names), names[0])
    return float(sample[first])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
