"""What the registry asks of its database, and the few changes it makes, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from contracts.base import Digest
from contracts.subjects import RunRef
from services.registry.store.models import AdapterRow, HistoryRow, Status, What


class Ledger:
    """Adapters and their history, within one open session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def candidate(self, ref: RunRef, attempt: int, adapter: Digest) -> AdapterRow | None:
        """The row this candidate already has, if any."""
        query = select(AdapterRow).filter_by(
            tenant=ref.tenant, run=ref.run, attempt=attempt, adapter=adapter
        )
        return self._session.scalar(query)

    def adapter(self, adapter_id: str) -> AdapterRow | None:
        return self._session.get(AdapterRow, adapter_id)

    def adapters(self, tenant: str | None = None) -> Sequence[AdapterRow]:
        """All adapters, or one tenant's, oldest first."""
        query = select(AdapterRow).order_by(AdapterRow.created_at, AdapterRow.id)
        return self._session.scalars(query.filter_by(tenant=tenant) if tenant else query).all()

    def versions(self, base_label: str, task: str) -> Sequence[int]:
        query = select(AdapterRow.version).filter_by(base_label=base_label, task=task)
        return self._session.scalars(query).all()

    def serving(self, tenant: str, deployment: str) -> AdapterRow | None:
        """The promoted adapter of a deployment; None where the base serves."""
        query = (
            select(AdapterRow)
            .filter_by(tenant=tenant, deployment=deployment, status="promoted")
            .order_by(AdapterRow.version.desc())
        )
        return self._session.scalars(query).first()

    def history(self, adapter_id: str) -> Sequence[HistoryRow]:
        """What happened to an adapter, oldest first."""
        query = select(HistoryRow).filter_by(adapter_id=adapter_id).order_by(HistoryRow.id)
        return self._session.scalars(query).all()

    def add(self, row: AdapterRow) -> None:
        self._session.add(row)
        self._session.flush()

    def note(
        self,
        adapter_id: str,
        what: What,
        *,
        at: datetime,
        who: str,
        why: str,
        cause: str,
        status: Status | None = None,
    ) -> bool:
        """Add a line of history and set the status. False, without change, if it is there."""
        known = select(HistoryRow.id).filter_by(adapter_id=adapter_id, what=what, cause=cause)
        row = self.adapter(adapter_id)
        if row is None or self._session.scalar(known) is not None:
            return False
        self._session.add(
            HistoryRow(
                adapter_id=adapter_id, at=at, what=what, who=who, why=why[:4000], cause=cause
            )
        )
        if status is not None:
            row.status = status
        self._session.flush()
        return True
