"""The registry's database: which adapters there are, and what happened to each (R5, R6)."""

from services.registry.store.database import RegistryStore
from services.registry.store.ledger import Ledger
from services.registry.store.models import AdapterRow, HistoryRow

__all__ = ["AdapterRow", "HistoryRow", "Ledger", "RegistryStore"]
