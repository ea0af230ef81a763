"""Alembic's entry: the registry hands it an open connection."""

from __future__ import annotations

from alembic import context

from services.registry.store.models import Tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Tables.metadata,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
