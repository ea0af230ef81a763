"""The error tree. Each error says whether another try can help; the bus middleware reads that.

SluiceError
├── TransientError       try again later: the broker is away, a peer is restarting, a lock is held
│   ├── LeaseHeld        another worker has this step
│   ├── PeerUnavailable  a service or teacher does not answer
│   └── DiskFull         a write found no space; the step goes on when there is some
└── PermanentError       trying again gives the same: a person must act
    ├── InvalidInput     a job, row or file is wrong; carries the problems and their mends
    ├── OutOfMemory      a step needs more memory than its process may take
    ├── ArtifactMissing  a digest is not in the store
    ├── ArtifactCorrupt  content does not match its digest
    ├── EvaluationWithheld  the training path asked for an evaluation set
    ├── Misconfigured    a setting or the topology is wrong; a service refuses to start
    └── SignatureInvalid a signed document does not verify
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from contracts.base import Problem


class SluiceError(Exception):
    """Every error we raise on purpose. `mend` tells the reader what to do."""

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, mend: str = "") -> None:
        super().__init__(message)
        self.mend = mend


class TransientError(SluiceError):
    """Another try can help."""

    retryable = True


class LeaseHeld(TransientError):
    """Another worker holds the lease of this step."""


class PeerUnavailable(TransientError):
    """A service we depend on does not answer."""


class DiskFull(TransientError):
    """A write found no space. The work done so far is kept."""

    def __init__(self, doing: str) -> None:
        super().__init__(
            f"the disk is full: {doing}", mend="free space; the step is tried again by itself"
        )


class PermanentError(SluiceError):
    """Another try gives the same result."""


class InvalidInput(PermanentError):
    """An input is wrong; every problem is named."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{p.where}: {p.problem}" for p in problems))
        self.problems = tuple(problems)


class OutOfMemory(PermanentError):
    """A step needs more memory than its process may take."""

    def __init__(self, doing: str) -> None:
        super().__init__(
            f"no memory was left for this step: {doing or 'an allocation failed'}",
            mend="give the service more memory or the job less work, then `sluice retry`",
        )


class ArtifactMissing(PermanentError):
    """The store has no content under this digest."""


class ArtifactCorrupt(PermanentError):
    """Stored content no longer matches its digest."""


class EvaluationWithheld(PermanentError):
    """The training path asked the store for an evaluation set of its tenant."""

    def __init__(self, digest: str) -> None:
        super().__init__(
            f"{digest} is registered as an evaluation set: the training path may not hold it",
            mend="train on other rows; what a gate judges by must never be learned",
        )
        self.digest = digest


class Misconfigured(PermanentError):
    """A setting, permission or stream is not what the service needs."""


class SignatureInvalid(PermanentError):
    """A signed document does not verify; the message names the link that fails."""
