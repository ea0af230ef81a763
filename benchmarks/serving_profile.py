"""Where the time of the engine's steps goes: `python benchmarks/serving.py MODEL --profile`.

The engine's parts are wrapped with a stopwatch that runs for one part at a time, so the shares of a
step add up to it. Steps that compute prompts and steps that only decode are told apart. Times are
wall time of the engine's thread: on a busy machine all of them grow.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from services.serving.engine import llama_engine, model

LINEARS, HEAD, ATTENTION, LORA = "base linears", "logits", "attention", "LoRA shrink and expand"
FUSED, SAMPLING, ANSWERS = "norms and activations", "sampling", "texts and events"
BINDING, SCHEDULING, PYTHON = "LoRA binding", "scheduling", "Python between the kernels"
BETWEEN = "between steps: admission, hand-over"


class Stopwatch:
    """Seconds by name. What runs inside another part counts for the inner one alone."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._open: list[str] = []
        self._since = 0.0

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, with its time under `name`. For one thread."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self._switch()
            self._open.append(name)
            try:
                return function(*args, **kwargs)
            finally:
                self._switch()
                self._open.pop()

        return run

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.spent[self._open[-1]] += now - self._since
        self._since = now


class Profile:
    """An engine under the stopwatch; `table` is what was seen since `clear`."""

    def __init__(self, engine: llama_engine.LlamaEngine) -> None:
        self._watch = Stopwatch()
        self._steps: Counter[str] = Counter()
        self._spent: dict[str, Counter[str]] = {}
        self._wrap(engine)

    def clear(self) -> None:
        """For a quiet engine: forget the steps so far."""
        self._watch.spent.clear()
        self._steps.clear()
        self._spent.clear()

    def table(self) -> list[str]:
        """Lines to print."""
        lines = []
        for kind, count in sorted(self._steps.items()):
            spent = self._spent[kind]
            whole = sum(spent.values())
            lines.append(f"  {kind} step: {whole / count * 1e3:.1f} ms, mean of {count}")
            for name, seconds in spent.most_common():
                lines.append(
                    f"    {name:<36} {seconds / count * 1e3:8.2f} ms {seconds / whole:6.1%}"
                )
        return lines

    def _wrap(self, engine: Any) -> None:
        timed, llama = self._watch.timed, engine._model
        llama._head = timed(HEAD, llama._head)
        for layer in llama._layers:
            for name, product in layer.linears.items():
                layer.linears[name] = timed(LINEARS, product)
        for name in ("__init__", "__call__"):
            setattr(model._Attention, name, timed(ATTENTION, getattr(model._Attention, name)))
        setattr(llama_engine, "step_of", timed(SCHEDULING, llama_engine.step_of))  # noqa: B010
        prepare = timed(BINDING, llama._lora._prepare)
        llama._lora._prepare = lambda *given: timed(LORA, prepare(*given))
        for part, names, label in (
            (llama._fused, ("add_rms_norm", "silu_mul"), FUSED),
            (engine._answering, ("_summarize",), SAMPLING),
            (engine._answering, ("advance", "score_prompt"), ANSWERS),
            (engine._scheduler, ("reserve",), SCHEDULING),
            (engine._turns, ("next",), SCHEDULING),
            (engine._scheduler, ("sweep", "admit"), BETWEEN),
            (engine._deliveries, ("send",), BETWEEN),
        ):
            for name in names:
                setattr(part, name, timed(label, getattr(part, name)))
        step = timed(PYTHON, engine._step)

        def counted() -> None:
            prompts = any(s.prefilling for s in engine._scheduler.running)
            kind = "prefill" if prompts else "decode"
            step()
            self._steps[kind] += 1
            # what came between the last step and this one counts with this one
            self._spent.setdefault(kind, Counter()).update(self._watch.spent)
            self._watch.spent.clear()

        engine._step = counted
