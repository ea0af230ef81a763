"""Leases: at most one worker does a step at a time.

A lease is a key in a JetStream key-value bucket whose entries the *server* expires (bucket TTL), so
no clock of ours is compared with another's. The holder renews it by compare-and-set; a holder that
stalls past the TTL finds the key gone or taken, and must stop. A lease saves duplicate work; the
run log's compare-and-set is what makes a duplicate harmless.
"""

from __future__ import annotations

from dataclasses import dataclass

import nats.errors
from nats.js.errors import APIError, KeyWrongLastSequenceError, NotFoundError
from nats.js.kv import KeyValue

from shared.errors import LeaseHeld, TransientError

TTL_S = 15.0
RENEW_EVERY_S = 4.0


class LeaseLost(TransientError):
    """The lease expired or was taken while we worked; what we produced must not be appended."""


@dataclass(slots=True)
class Lease:
    """A held lease."""

    key: str
    holder: str
    revision: int


class Leases:
    """Acquires, renews and releases leases in one bucket."""

    def __init__(self, bucket: KeyValue, holder: str) -> None:
        self._bucket = bucket
        self._holder = holder

    async def acquire(self, key: str) -> Lease:
        """Raises LeaseHeld if another worker has it, TransientError if the broker is away."""
        try:
            revision = await self._bucket.create(key, self._holder.encode())
        except KeyWrongLastSequenceError as error:
            raise LeaseHeld(f"{key} is being worked on elsewhere") from error
        except (nats.errors.Error, APIError, TimeoutError) as error:
            raise TransientError(f"leases do not answer: {error!r}") from error
        return Lease(key=key, holder=self._holder, revision=revision)

    async def renew(self, lease: Lease) -> None:
        """Raises LeaseLost if it is no longer ours, TransientError if the broker is away."""
        try:
            lease.revision = await self._bucket.update(
                lease.key, lease.holder.encode(), last=lease.revision
            )
        except KeyWrongLastSequenceError as error:
            raise LeaseLost(f"{lease.key} was lost") from error
        except (nats.errors.Error, APIError, TimeoutError) as error:
            raise TransientError(f"leases do not answer: {error!r}") from error

    async def release(self, lease: Lease) -> None:
        """Give it back. A lease that cannot be released expires by itself."""
        try:
            await self._bucket.delete(lease.key, last=lease.revision)
        except (nats.errors.Error, APIError, NotFoundError, TimeoutError):
            return
