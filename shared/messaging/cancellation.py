"""Cancellation that a library has swallowed.

`asyncio.wait_for` before Python 3.12 returns normally if its future finished in the moment of the
cancellation, and the NATS client turns some cancellations into its own errors. A loop around either
would go on for ever while its canceller waits for it; such loops ask here once a round.
"""

from __future__ import annotations

import asyncio


def heed_cancellation() -> None:
    """Raises CancelledError if the running task was asked to end."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
