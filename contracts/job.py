"""The adaptation job: what a user asks for, in one document.

A job names a behaviour and how it is scored, the data with its licence and provenance, the
evaluation sets, and the policies (method, gates, rollout) the run is held to. Every default is the
specification's number.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from contracts.base import Frozen, Namespace, Slug, Uri
from contracts.distillation import DistillationParameters
from contracts.economics import Ledger, OneOffCosts
from contracts.governance import CurationPolicy, DataRole, Synthesis
from contracts.preference import PreferenceParameters
from contracts.rubric import Rubric

MethodName = Literal[
    "auto",
    "sft",
    "instruction",
    "lora",
    "qlora",
    "preference",
    "domain_adaptation",
    "distillation",
]
Parameters = Literal["full", "lora", "qlora"]
WEIGHTED: tuple[MethodName, ...] = ("sft", "instruction", "domain_adaptation", "distillation")
"""Methods that say in `parameters` which weights move."""
ScorerName = Annotated[str, Field(pattern=r"^[a-z_]+$|^[\w.]+:[\w.]+$")]
GateId = Literal["G1", "G2", "G3", "G4", "G5", "G6", "G7", "G12"]
"""The evaluation gates of this version. G8-G10 belong to rollout and registry; G11 and G13 are how
every gate fails and counts."""


class BaseModelRef(Frozen):
    """The frozen base: a model folder, or a name under `$SLUICE_HOME/models`."""

    model: str = Field(min_length=1)
    name: str = Field(default="", pattern=r"^[A-Za-z0-9._-]*$")
    """How adapter ids spell it; by default the last part of `model`."""

    @property
    def label(self) -> str:
        return self.name or self.model.rstrip("/").rsplit("/", 1)[-1]


class Behaviour(Frozen):
    """The behaviour to adapt, and how one answer is judged."""

    description: str = Field(min_length=1)
    scorer: ScorerName
    """A built-in (`tool_call`, `json_schema`, `exact_match`, `regex`, `python_tests`,
    `sql_query`, `rubric`), or `module:function`."""
    system_prompt: str | None = None
    output_schema: dict[str, JsonValue] | None = None
    """JSON Schema of a valid answer, where one schema serves all rows."""
    target: float = Field(gt=0, le=1)
    """The success rate that makes the behaviour good enough. A lighter rung that reaches it ends
    the run without training."""
    max_tokens: int = Field(default=128, ge=1, le=4096)
    answer_marker: str | None = Field(default=None, min_length=1)
    """What stands before the final answer of a model that reasons first (`Answer:`). Scorers judge
    what follows the last one, or an answer without one as a whole."""
    rubric: Rubric | None = None
    """By what, and by which judge, the scorer `rubric` judges."""
    constrained: bool = False
    """Judge and serve the adapter under constrained decoding: by `output_schema`, or else by the
    signatures of a request's tools. A safety net that hides a lost format, so off by default."""

    @model_validator(mode="after")
    def _rubric_with_its_scorer(self) -> Behaviour:
        if (self.scorer == "rubric") != (self.rubric is not None):
            raise ValueError("the scorer `rubric` needs `rubric`, and no other scorer reads it")
        return self


class Provenance(Frozen):
    """Where data came from."""

    source: str = Field(min_length=1)
    url: str | None = None
    retrieved: str | None = None
    collected_by: str | None = None
    failure_log: bool = False
    """The rows were made from failed requests; `DataSource.failures` names their log (H7)."""


class DataSource(Frozen):
    """A file of training rows (JSON Lines of `contracts.data.Row`)."""

    uri: Uri
    role: DataRole = "positive"
    licence: str = Field(min_length=1)
    """An SPDX identifier, or `proprietary:<owner>` with the tenant as the owner."""
    provenance: Provenance
    failures: Uri | None = None
    """The failure log (JSON Lines of `contracts.failures.Trace`) the rows were made from. It is
    diagnosed at intake, and may be trained on only where its leading cause is adaptation (H7)."""


class EvaluationSet(Frozen):
    """A file of evaluation rows. Never readable by the training path."""

    uri: Uri
    licence: str = Field(min_length=1)


class GeneralSuite(Frozen):
    """What G5 runs through lm-evaluation-harness."""

    tasks: tuple[str, ...] = ("sluice_basics",)
    limit: int | None = Field(default=None, ge=1)
    """Items per task; None is all."""


class Evaluation(Frozen):
    """The evaluation sets of the job, kept apart from training by construction."""

    dev: EvaluationSet
    """Diagnosis measures the ladder's rungs here."""
    heldout: EvaluationSet
    """Gates G1, G3 and G4 judge here; nothing else reads it."""
    general: GeneralSuite = GeneralSuite()
    minimum_items: int = Field(default=30, ge=2)
    """Fewer items than this in dev or held-out is an evaluation gap (D5)."""


class Corpus(Frozen):
    """Documents (JSON Lines of `contracts.data.Document`) that retrieval may show the base."""

    uri: Uri
    passages: int = Field(default=3, ge=1, le=20)
    """How many of the best-matching documents each request is shown."""


class LargerBase(Frozen):
    """A bigger model to upgrade to, or to route to, behind an OpenAI-compatible endpoint."""

    model: str = Field(min_length=1)
    url: str | None = None
    """None is our own serving, whose deployments and adapters it may name."""
    price_per_mtok: float = Field(default=0.0, ge=0)


class Ladder(Frozen):
    """What the lighter rungs may use when diagnosis measures them."""

    prompts: tuple[Annotated[str, Field(min_length=1)], ...] = Field(default=(), max_length=8)
    """System prompts to try; without any, a few systematic revisions of the job's own."""
    validator_retries: int = Field(default=2, ge=0, le=5)
    """Requests after the first while the validator refuses the answer; 0 leaves the rung out."""
    corpus: Corpus | None = None
    larger_base: LargerBase | None = None
    model_decision: str | None = Field(default=None, min_length=1)
    """The Model Decision Record: why this base and no larger one, where none is measured (D9)."""


class LoraParameters(Frozen):
    """Low-rank adaptation: W = W0 + (alpha/r) B A."""

    r: int = Field(default=16, ge=1, le=256)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"


class Hyperparameters(Frozen):
    """Optimisation settings, shared by every method."""

    learning_rate: float = Field(default=5e-4, gt=0)
    batch_size: int = Field(default=8, ge=1)
    gradient_accumulation: int = Field(default=1, ge=1)
    epochs: float = Field(default=1.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    max_length: int = Field(default=1024, ge=8)
    checkpoint_every: int = Field(default=10, ge=1)
    """Optimizer steps between checkpoints."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products; weights, gradients and the optimizer are float32 either way.
    `auto` is bfloat16 where a short measurement before the first step finds it faster; the choice
    is kept, in the recipe too, so that a resumed run has it again."""
    optimizer: Literal["adamw", "paged_adamw"] = "adamw"
    """`paged_adamw` moves its moments between GPU and host memory; it needs a CUDA GPU."""
    seed: int = 0


class Method(Frozen):
    """How to train. `auto` lets diagnosis choose."""

    name: MethodName = "auto"
    parameters: Parameters | None = None
    """Which weights move under `sft`, `instruction` and `domain_adaptation`; None is `full`. The
    methods `lora` and `qlora` are `sft` with these weights. Under `distillation` None is `lora`,
    and logits are distilled into nothing else."""
    lora: LoraParameters = LoraParameters()
    """Of the adapter that serves; after `full`, its rank is what of the change can be kept."""
    preference: PreferenceParameters = PreferenceParameters()
    """Read where the method is `preference`."""
    distillation: DistillationParameters | None = None
    """Read where the method is `distillation`."""
    train: Hyperparameters = Hyperparameters()
    data_range_override: str | None = None
    """Why fewer rows than the method's documented range are acceptable (D7); lands on the card."""

    @model_validator(mode="after")
    def _one_word_for_weights(self) -> Method:
        if self.parameters and self.name not in WEIGHTED:
            raise ValueError(f"`parameters` is read under {', '.join(WEIGHTED)}, not {self.name}")
        logits = self.distillation is not None and not self.distillation.asks
        if self.name == "distillation" and logits and self.parameters not in (None, "lora"):
            raise ValueError("logits are distilled into an adapter: set `parameters` to lora")
        return self

    def recipe(self, chosen: str) -> str:
        """The name of the recipe that carries out `chosen`: of `preference`, its objective."""
        if chosen == "distillation" and self.distillation is not None:
            return self.distillation.recipe
        named = {"preference": self.preference.objective, "domain_adaptation": "cpt"}
        return named.get(chosen, chosen)

    @property
    def may_ask(self) -> bool:
        """Whether a teacher writes rows, should the method turn out to be `distillation`."""
        return self.distillation is not None and self.distillation.asks

    def asked_teacher(self, chosen: str) -> DistillationParameters | None:
        """The distillation, where `chosen` is one whose teacher writes the rows that train."""
        asks = chosen == "distillation" and self.distillation and self.distillation.asks
        return self.distillation if asks else None


class GatePolicy(Frozen):
    """The thresholds a candidate is held to."""

    required: tuple[GateId, ...] = ("G1", "G2", "G3", "G4", "G5", "G6", "G7", "G12")
    minimum_gain: float = Field(default=0.05, ge=0, le=1)
    """G3: candidate minus base on held-out success."""
    minimum_validity: float = Field(default=0.90, ge=0, le=1)
    """G4: share of answers that parse and satisfy their schema, without constraints."""
    maximum_invented: float | None = Field(default=None, ge=0, le=1)
    """G4: share of broken requests, whose values are lost, that may be answered with a call that
    makes them up. None measures it and decides nothing by it."""
    maximum_decay: float = Field(default=0.02, ge=0, le=1)
    """G5: the non-inferiority margin, as a proportion (0.02 is two percentage points)."""
    maximum_safety_loss: float = Field(default=0.15, ge=0, le=1)
    """G6: the non-inferiority margin against the base of each part of the safety suite."""
    maximum_memorized: float = Field(default=0.10, ge=0, le=1)
    """G7: share of training records that the candidate may reproduce and the base does not."""
    minimum_retained: float = Field(default=0.50, ge=0, le=1)
    """G12: share of the candidate's success that must outlive another wording of the request."""
    maximum_elsewhere_loss: float = Field(default=0.15, ge=0, le=1)
    """G12: what may be lost against the base on unseen domains and on false premises; a candidate
    that has for sure lost more fails."""
    accept_inconclusive: tuple[GateId, ...] = ()
    """Of G6, G7 and G12: gates whose `inconclusive` does not end the run. It stands on the card."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    attempts: int = Field(default=1, ge=1, le=10)

    @model_validator(mode="after")
    def _in_order(self) -> GatePolicy:
        if missing := {"G1", "G2", "G3"} - set(self.required):
            raise ValueError(f"every candidate passes G1, G2 and G3; add {sorted(missing)}")
        if strict := set(self.accept_inconclusive) - {"G6", "G7", "G12"}:
            raise ValueError(f"{sorted(strict)} must be conclusive, not in accept_inconclusive")
        return self

    def accepts(self, gate: str, verdict: str) -> bool:
        """Whether a candidate may go on after this verdict."""
        undecided = verdict == "inconclusive" and gate in self.accept_inconclusive
        return verdict == "passed" or undecided


class CanaryStage(Frozen):
    """One step of the canary ladder."""

    percent: int = Field(ge=1, le=100)
    """Share of conversations the candidate answers."""
    outcomes: int = Field(default=50, ge=1)
    """Candidate outcomes to collect before the stage is judged."""


class RolloutPolicy(Frozen):
    """Shadow, then the canary ladder."""

    deployment: Slug
    """The public alias that clients name as `model`."""
    shadow_outcomes: int = Field(default=50, ge=1)
    """Mirrored requests to collect before shadow is judged."""
    stages: tuple[CanaryStage, ...] = tuple(CanaryStage(percent=p) for p in (1, 10, 50, 100))
    minimum_success: float = Field(default=0.90, ge=0, le=1)
    """M1: a candidate below this, with evidence, rolls back."""
    maximum_latency_ratio: float = Field(default=3.0, gt=0)
    """Candidate p95 over baseline p95."""
    maximum_error_rate: float = Field(default=0.02, ge=0, le=1)
    """Candidate requests that raise."""
    maximum_cost_ratio: float = Field(default=1.5, gt=0)
    """Tokens of a request over the baseline's 95th percentile."""
    maximum_refusal_increase: float = Field(default=0.05, ge=0, le=1)
    """Share of refusals above the baseline's."""
    maximum_override_rate: float = Field(default=0.05, gt=0, lt=1)
    """M9: answers that people had to override."""
    maximum_drift: float = Field(default=1.5, gt=0)
    """Perplexity of an answer over the baseline's 95th percentile."""
    stage_timeout_s: float = Field(default=3600.0, gt=0)
    """Without enough traffic for this long the rollout is held."""
    approval: Literal["automatic", "manual"] = "automatic"

    @model_validator(mode="after")
    def _ascending(self) -> RolloutPolicy:
        shares = [stage.percent for stage in self.stages]
        if not shares or shares != sorted(set(shares)) or shares[-1] != 100:
            raise ValueError("stages ascend without repeats and end at 100 percent")
        return self


class Economics(Frozen):
    """Prices, for cost per success and the distillation veto."""

    price_per_mtok: float = Field(default=0.0, ge=0)
    teacher_price_per_mtok: float | None = Field(default=None, ge=0)
    monthly_requests: int | None = Field(default=None, ge=0)
    one_off: OneOffCosts | None = None
    """What the adaptation costs once."""
    tokens_per_request: float | None = Field(default=None, gt=0)
    fallback_rate: float = Field(default=0.0, ge=0, le=1)
    horizon_months: float = Field(default=12.0, gt=0)

    @property
    def ledger(self) -> Ledger | None:
        """The numbers that decide whether the student pays; None if some are not given."""
        if self.teacher_price_per_mtok is None or self.one_off is None:
            return None
        if self.tokens_per_request is None or self.monthly_requests is None:
            return None
        return Ledger(
            one_off=self.one_off,
            teacher_price_per_mtok=self.teacher_price_per_mtok,
            student_price_per_mtok=self.price_per_mtok,
            fallback_rate=self.fallback_rate,
            tokens_per_request=self.tokens_per_request,
            monthly_requests=self.monthly_requests,
            horizon_months=self.horizon_months,
        )


class AdaptationJob(Frozen):
    """One request to adapt one behaviour of one base model for one tenant."""

    schema_: Literal["sluice.job/v1"] = Field(default="sluice.job/v1", alias="schema")
    name: Slug
    tenant: Slug
    task_namespace: Namespace
    base: BaseModelRef
    behaviour: Behaviour
    data: tuple[DataSource, ...] = Field(min_length=1)
    evaluation: Evaluation
    rollout: RolloutPolicy
    ladder: Ladder = Ladder()
    method: Method = Method()
    synthesis: Synthesis | None = None
    curation: CurationPolicy = CurationPolicy()
    gates: GatePolicy = GatePolicy()
    economics: Economics = Economics()
    stop_after: Literal["diagnosis"] | None = None
    """End with diagnosis's verdict, whatever it is: nothing is curated or trained."""
    train_even_if_lighter_suffices: str | None = None
    """A reason to train although a lighter rung reaches the target; lands on the card."""
