"""The README beside the weights: Hugging Face's model card, rendered from the signed one (R6)."""

from __future__ import annotations

from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from contracts.card import AdaptationCard
from contracts.measure import Comparison

_TEMPLATE = """\
---
{{ front }}---

# {{ card.adapter_id }}

{{ card.job.behaviour.description }}

A LoRA adapter for `{{ card.job.base.label }}`, trained by Sluiceway for tenant `{{ card.tenant }}`
(run `{{ card.run }}`). This page is a rendering; the signed record is `card.dsse.json`.
Verify it offline: `sluice verify <this folder> --key <registry's signing-key.pub>`.

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({{ base_model | tojson }})
model = PeftModel.from_pretrained(base, "<this folder>", subfolder="adapter")
```

## What changed
{% for gate in card.gates %}{% for row in gate.comparisons %}
- {{ row.metric }} ({{ gate.gate }}): {{ delta(row) }}
{%- endfor %}{% endfor %}

## Gates

| gate | verdict | finding |
|---|---|---|
{% for gate in card.gates -%}
| {{ gate.gate }} | {{ gate.verdict }} | {{ gate.summary | cell }} |
{% endfor %}
## Training

Method {{ card.recipe.method }} ({{ card.objective }}
{%- if card.recipe.parameters %}, {{ card.recipe.parameters }} weights{% endif %});
{{ card.choice.reason | cell }}.

| setting | value |
|---|---|
{% if lora -%}
| rank r, α, dropout | {{ lora.r }}, {{ lora.alpha }}, {{ lora.dropout }} |
{% endif -%}
| learning rate | {{ train.learning_rate }} |
| batch × accumulation | {{ train.batch_size }} × {{ train.gradient_accumulation }} |
| epochs, steps | {{ train.epochs }}, {{ card.training.steps }} |
| training loss | {{ "%.4f" | format(card.training.train_loss) }} |
| base | `{{ card.base }}` |
| tokenizer | `{{ card.tokenizer }}` |
| weights | `{{ card.training.weights }}` |

## Data

{% for source in card.dataset.sources -%}
- {{ source.provenance | cell }}: {{ source.rows }} {{ source.role }} rows, {{ source.licence }}
{% endfor %}
Dataset card `{{ card.dataset_digest }}`.

## In production

Rollback target: `{{ card.rollback }}`. Reconsider this adapter when:
{% for reason in card.reconsider_when %}
- {{ reason }}
{%- endfor %}
"""


def _cell(text: str) -> str:
    """One line of a table or list, whatever the text holds."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


_ENVIRONMENT = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
_ENVIRONMENT.filters["cell"] = _cell


def delta(row: Comparison) -> str:
    """`+61.3 points (0.0 → 61.3 %, 95 % CI +53.3 to +69.3, n = 150)`."""
    interval = row.interval
    return (
        f"{_signed(row.difference)} points "
        f"({100 * row.baseline:.1f} → {100 * row.candidate:.1f} %, "
        f"{100 * interval.level:.0f} % CI {_signed(interval.low)} to {_signed(interval.high)}, "
        f"n = {row.n})"
    )


def _signed(share: float) -> str:
    """A proportion in percentage points, with a true minus sign."""
    points = round(100 * share, 1) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f"{points:+.1f}".replace("-", "−")


def render(card: AdaptationCard) -> str:
    """The README of the adapter that `card` describes."""
    front = yaml.safe_dump(front_matter(card), sort_keys=False, allow_unicode=True)
    template = _ENVIRONMENT.from_string(_TEMPLATE)
    return template.render(
        card=card,
        lora=card.recipe.lora,
        train=card.recipe.train,
        front=front,
        delta=delta,
        base_model=card.job.base.model,
    )


def front_matter(card: AdaptationCard) -> dict[str, Any]:
    """Hugging Face's metadata block."""
    return {
        "base_model": card.job.base.model,
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        **_licence(card),
        "tags": ["lora", "sluiceway", card.job.task_namespace, card.recipe.method],
        "model-index": [{"name": card.adapter_id, "results": _results(card)}],
    }


def _licence(card: AdaptationCard) -> dict[str, str]:
    licences = sorted({source.licence for source in card.dataset.sources})
    if len(licences) == 1 and ":" not in licences[0]:
        return {"license": licences[0].lower()}
    return {"license": "other", "license_name": " AND ".join(licences) or "unknown"}


def _results(card: AdaptationCard) -> list[dict[str, Any]]:
    return [
        {
            "task": {"type": "text-generation"},
            "dataset": {"name": f"{gate.gate} evaluation set", "type": card.job.task_namespace},
            "metrics": [{"type": row.metric, "value": row.candidate, "name": row.metric}],
        }
        for gate in card.gates
        for row in gate.comparisons
    ]
