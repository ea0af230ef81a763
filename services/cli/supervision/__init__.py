"""Supervision: the processes `sluice up` starts, watches, restarts and ends."""
