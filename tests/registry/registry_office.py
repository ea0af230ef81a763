"""A registry at work in a folder of its own, for the tests beside this file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from contracts.base import Event
from contracts.job import BaseModelRef
from contracts.registry import AdapterPromoted, CandidateRegistered
from contracts.run import Run, fold
from services.registry.registry import Registry
from services.registry.store import RegistryStore
from shared.artifacts import ArtifactStore
from shared.signing import SigningKey
from shared.testing.adapters import store_adapter, store_dataset
from shared.testing.runs import REF, gated_events, recorded_log, rollout_events


class ChatTokens:
    def special_tokens(self, base: BaseModelRef) -> tuple[str, ...]:
        return ("<|im_start|>", "<|im_end|>")


@dataclass(kw_only=True)
class Office:
    """A registry with its store, key and database, and the runs it is shown."""

    artifacts: ArtifactStore
    key: SigningKey
    store: RegistryStore

    @property
    def registry(self) -> Registry:
        return Registry(
            artifacts=self.artifacts, key=self.key, store=self.store, tokenizers=ChatTokens()
        )

    def gated(self, *, seed: int = 0, files: dict[str, bytes] | None = None) -> Run:
        dataset = store_dataset(self.artifacts)
        trained = store_adapter(self.artifacts, dataset, seed=seed, files=files)
        return fold(REF, recorded_log(REF, gated_events(trained=trained, dataset=dataset)))

    def follow(self, run: Run, *events: Event) -> Run:
        return fold(REF, recorded_log(REF, events, after=run.log))

    def completed(self, *, seed: int = 0, replaced: str = "base") -> Run:
        run = self.gated(seed=seed)
        registered = self.registry.register(run)
        assert isinstance(registered, CandidateRegistered), registered
        run = self.attested(self.follow(run, registered))
        for event in rollout_events(registered.adapter_id, replaced=replaced):
            run = self.attested(self.follow(run, event))
        return run

    def attested(self, run: Run) -> Run:
        """The run once the registry has signed what was judged."""
        return self.follow(run, *self.registry.attest(run))

    def promoted(self, folder: Path) -> AdapterPromoted:
        fact = self.registry.promote(self.completed())
        self.artifacts.fetch_tree(fact.bundle, folder)
        return fact


def open_office(folder: Path, url: str = "") -> Office:
    return Office(
        artifacts=ArtifactStore((folder / "artifacts").as_uri()),
        key=SigningKey.load_or_create(folder / "keys"),
        store=RegistryStore(url or f"sqlite:///{folder / 'registry.db'}"),
    )
