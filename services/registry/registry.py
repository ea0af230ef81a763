"""The registry: gives a candidate its id and signed card, closes the chain, keeps the history.

Every method can be repeated: the candidate of one attempt keeps its id and version whatever is
delivered twice or dies halfway, because the row is the last thing written, names the candidate
uniquely, and everything signed depends on the run's log alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import ValidationError

from contracts.base import Digest, Problem
from contracts.card import CARD_TYPE, REVOCATION_TYPE, Revocation
from contracts.commands import Withdraw
from contracts.data import DatasetCard
from contracts.envelope import Recorded
from contracts.job import BaseModelRef
from contracts.registry import (
    AdapterPromoted,
    AdapterWithdrawn,
    CandidateRegistered,
    RegistrationRefused,
    VerdictAttested,
)
from contracts.rollout import RolledBack, RolloutCompleted
from contracts.run import Run
from contracts.training import Recipe
from services.registry import bundling, compatibility
from services.registry.cards import Candidate, build_card
from services.registry.chain import attested, awaits_attestation, completion, links, verdicts
from services.registry.store import AdapterRow, Ledger, RegistryStore
from services.registry.versions import next_id
from shared.artifacts import ArtifactStore
from shared.bundles import layout, open_card, required_attestations
from shared.bundles.card import SignedCard
from shared.bundles.chain import verdict_name
from shared.errors import ArtifactCorrupt, ArtifactMissing, InvalidInput, SignatureInvalid
from shared.signing import PublicKey, SigningKey, sign

_BASE = "base"
Model = TypeVar("Model", Recipe, DatasetCard)


class Tokenizers(Protocol):
    """Where the special tokens of a base are read."""

    def special_tokens(self, base: BaseModelRef) -> tuple[str, ...]:
        """In order of their ids."""
        ...


class Registry:
    """The application: artifacts, key and database in; the registry's facts out."""

    def __init__(
        self,
        *,
        artifacts: ArtifactStore,
        key: SigningKey,
        store: RegistryStore,
        tokenizers: Tokenizers,
        maximum_rank: int = 256,
        earlier_keys: Sequence[PublicKey] = (),
    ) -> None:
        """`earlier_keys` signed cards before a rotation; those still close with the new key."""
        self._artifacts = artifacts
        self._key = key
        self._trusted = (key.public, *earlier_keys)
        self._store = store
        self._tokenizers = tokenizers
        self._maximum_rank = maximum_rank

    def register(self, run: Run) -> CandidateRegistered | RegistrationRefused:
        """Give the run's candidate an id and a signed card, or say why not.

        Raises:
            TransientError: the database does not answer.

        """
        candidate = Candidate.of(run)
        if candidate is None or not run.required_gates_passed():
            return RegistrationRefused(
                reason="not every required gate has passed on this candidate",
                mend="see the failed gate's remediation, then retry the run",
            )
        try:
            recipe, dataset = self._inspect(candidate)
            row = self._store.write(
                lambda ledger: self._enter(ledger, run, candidate, recipe, dataset)
            )
        except InvalidInput as error:
            mends = dict.fromkeys(problem.mend for problem in error.problems)
            return RegistrationRefused(reason=str(error), mend="; ".join(mends))
        except (ArtifactMissing, ArtifactCorrupt) as error:
            return RegistrationRefused(
                reason=str(error), mend="restore the artifact store, then retry the run"
            )
        behaviour = run.job.behaviour if run.job else None
        constrained = behaviour is not None and behaviour.constrained
        return CandidateRegistered(
            adapter_id=row.id,
            adapter=row.adapter,
            card=row.card,
            deployment=row.deployment,
            constrained=constrained,
            output_schema=behaviour.output_schema if behaviour and constrained else None,
        )

    def promote(self, run: Run) -> AdapterPromoted:
        """Close the chain of a completed rollout: sign the promotion and assemble the bundle.

        Raises:
            InvalidInput: the chain is incomplete; each missing verdict is named.
            SignatureInvalid: the stored card is not ours or is not about this adapter.
            TransientError: the database does not answer.

        """
        registered, done = run.registered, completion(run)
        if registered is None or done is None or run.job is None:
            raise _incomplete("rollout", "is not complete")
        completed = done.event
        if (
            not isinstance(completed, RolloutCompleted)
            or completed.adapter_id != registered.adapter_id
        ):
            raise _incomplete("rollout", f"is not of {registered.adapter_id}")
        signed = self._signed(run, registered)
        _require_complete(run, signed)
        chain = links(run, signed, self._artifacts, self._key, self._trusted)
        bundle = bundling.bundle(registered, signed, chain, done, self._artifacts, self._key)
        self._store.write(
            lambda ledger: _enter_promotion(ledger, registered, bundle, completed, done)
        )
        return AdapterPromoted(
            adapter_id=registered.adapter_id, deployment=registered.deployment, bundle=bundle
        )

    def attest(self, run: Run) -> tuple[VerdictAttested, ...]:
        """Sign what was judged of the run's candidate and is not attested yet, in log order.

        Raises:
            SignatureInvalid: the stored card or an earlier link is not ours, or speaks of others.

        """
        registered = run.registered
        if registered is None or not awaits_attestation(run):
            return ()
        signed = self._signed(run, registered)
        chain = links(run, signed, self._artifacts, self._key, self._trusted)
        return tuple(
            VerdictAttested(
                adapter_id=registered.adapter_id,
                deployment=registered.deployment,
                name=link.made.name,
                index=link.made.index,
                attests=link.made.event_id,
                attestation=link.envelope,
                payload=link.payload,
            )
            for link in chain[len(attested(run)) :]
        )

    def roll_back(self, record: Recorded) -> None:
        """Note that a deployment answers from another adapter again, and why."""
        fact = record.event
        if not isinstance(fact, RolledBack):
            raise TypeError(f"{fact.type_name()} is no rollback")

        def note(ledger: Ledger) -> None:
            who, at, cause = str(fact.service), record.at, record.id
            ledger.note(
                fact.adapter_id,
                "rolled_back",
                at=at,
                who=who,
                why=fact.reason,
                cause=cause,
                status="rolled_back",
            )
            target = ledger.adapter(fact.to)
            if target is not None and target.status == "retired":
                why = f"{fact.adapter_id} was rolled back"
                ledger.note(
                    fact.to, "restored", at=at, who=who, why=why, cause=cause, status="promoted"
                )

        self._store.write(note)

    def withdraw(self, run: Run, command: Withdraw, cause: str, at: datetime) -> AdapterWithdrawn:
        """Take the run's adapter out of service for good: sign its revocation, note why.

        What answers instead is the card's rollback target, or the base if that is withdrawn too.

        Raises:
            InvalidInput: the run has no adapter.
            TransientError: the database does not answer.

        """
        registered = run.registered
        if registered is None:
            raise _incomplete(str(run.ref), "has no registered adapter")
        adapter_id = registered.adapter_id

        def note(ledger: Ledger) -> str:
            row = ledger.adapter(adapter_id)
            if row is None:
                raise _incomplete(adapter_id, "is not in the registry")
            ledger.note(
                adapter_id,
                "withdrawn",
                at=at,
                who="a user",
                why=f"{command.kind}: {command.reason}",
                cause=cause,
                status="withdrawn",
            )
            target = ledger.adapter(row.rollback)
            usable = target is not None and target.status in {"promoted", "retired"}
            return row.rollback if usable else _BASE

        to = self._store.write(note)
        revocation = Revocation(
            adapter_id=adapter_id,
            adapter=registered.adapter,
            kind=command.kind,
            reason=command.reason,
            at=at.isoformat(),
        )
        envelope = sign(REVOCATION_TYPE, revocation, {adapter_id: registered.adapter}, self._key)
        return AdapterWithdrawn(
            adapter_id=adapter_id,
            adapter=registered.adapter,
            deployment=registered.deployment,
            to=to,
            kind=command.kind,
            reason=command.reason,
            revocation=self._artifacts.put(envelope),
        )

    def _inspect(self, candidate: Candidate) -> tuple[Recipe, DatasetCard]:
        """The candidate's recipe and data, once its files are known to be safe and to fit."""
        tree = self._artifacts.tree(candidate.trained.adapter)
        _refuse_if(compatibility.tree_problems(tree, candidate.trained))
        with tempfile.TemporaryDirectory(prefix="sluice-registry-") as place:
            folder = self._artifacts.fetch_tree(candidate.trained.adapter, Path(place))
            config = compatibility.inspect(folder, self._maximum_rank)
            recipe = _parsed(Recipe, (folder / compatibility.RECIPE).read_bytes(), "recipe.json")
        _refuse_if(compatibility.recipe_problems(recipe, candidate))
        _refuse_if(compatibility.adapter_problems(config, recipe))
        content = self._artifacts.get(candidate.dataset.card)
        return recipe, _parsed(DatasetCard, content, "dataset card")

    def _enter(
        self, ledger: Ledger, run: Run, candidate: Candidate, recipe: Recipe, dataset: DatasetCard
    ) -> AdapterRow:
        """The candidate's row, as it stands or newly made with its signed card."""
        trained, job = candidate.trained, candidate.job
        if known := ledger.candidate(run.ref, run.attempt, trained.adapter):
            return known
        adapter_id = next_id(job, ledger.versions(job.base.label, job.task_namespace))
        serving = ledger.serving(run.ref.tenant, job.rollout.deployment)
        rollback = serving.id if serving else _BASE
        card = build_card(
            run,
            candidate,
            adapter_id=adapter_id,
            dataset=dataset,
            recipe=recipe,
            special_tokens=self._tokenizers.special_tokens(job.base),
            rollback=rollback,
        )
        files = self._artifacts.tree(trained.adapter).files
        subjects = {layout.ADAPTER + name: blob for name, blob in files.items()}
        judged = verdicts(run)[-1].record
        row = AdapterRow(
            id=str(adapter_id),
            tenant=run.ref.tenant,
            run=run.ref.run,
            attempt=run.attempt,
            deployment=job.rollout.deployment,
            base_label=adapter_id.base,
            task=adapter_id.task,
            version=adapter_id.version,
            base=trained.base,
            tokenizer=trained.tokenizer,
            weights=trained.weights,
            adapter=trained.adapter,
            card=self._artifacts.put(sign(CARD_TYPE, card, subjects, self._key)),
            bundle=None,
            rollback=rollback,
            status="candidate",
            created_at=judged.at,
        )
        ledger.add(row)
        why = "every required gate passed"
        ledger.note(row.id, "registered", at=judged.at, who="registry", why=why, cause=judged.id)
        return row

    def _signed(self, run: Run, registered: CandidateRegistered) -> SignedCard:
        signed = open_card(self._artifacts.get(registered.card), self._trusted)
        card = signed.card
        if (card.adapter_id, card.run, card.tenant) != (
            registered.adapter_id,
            run.ref.run,
            run.ref.tenant,
        ) or card.training.adapter != registered.adapter:
            raise SignatureInvalid("the card is signed for another run or adapter")
        return signed


def _enter_promotion(
    ledger: Ledger,
    registered: CandidateRegistered,
    bundle: Digest,
    completed: RolloutCompleted,
    done: Recorded,
) -> None:
    row = ledger.adapter(registered.adapter_id)
    if row is None or row.status in {"retired", "withdrawn"}:
        raise _incomplete(registered.adapter_id, "is withdrawn or was never registered here")
    row.bundle = bundle
    fresh = ledger.note(
        row.id,
        "promoted",
        at=done.at,
        who=str(completed.service),
        why="every stage of the rollout passed",
        cause=done.id,
        status="promoted",
    )
    if fresh and completed.replaced != _BASE:
        ledger.note(
            completed.replaced,
            "retired",
            at=done.at,
            who=str(completed.service),
            why=f"replaced by {row.id}",
            cause=done.id,
            status="retired",
        )


def _require_complete(run: Run, signed: SignedCard) -> None:
    newest = {verdict_name(one.verdict): one.verdict.verdict for one in verdicts(run)}
    job = signed.card.job
    _refuse_if(
        [
            Problem(where=name, problem="has no passed verdict", mend="retry the run")
            for name in required_attestations(job)
            if not job.gates.accepts(name, newest.get(name, ""))
        ]
    )


def _refuse_if(problems: list[Problem]) -> None:
    if problems:
        raise InvalidInput(problems)


def _incomplete(where: str, problem: str) -> InvalidInput:
    mend = "promote only what has passed every gate and stage"
    return InvalidInput([Problem(where=where, problem=problem, mend=mend)])


def _parsed(kind: type[Model], content: bytes, where: str) -> Model:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        problem = f"cannot be read: {error.error_count()} errors, first {error.errors()[0]['msg']}"
        raise InvalidInput([Problem(where=where, problem=problem, mend="train again")]) from error
