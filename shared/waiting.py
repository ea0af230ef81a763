"""How OpenMP's threads wait between two parallel loops: libgomp reads it when it is loaded.

For the environment of a process to be started. Asleep, a thread takes some 50 µs to wake, which is
half of what the hundreds of short loops of a decoding step cost; spinning without end, it takes a
processor from the other services.
"""

from __future__ import annotations

from typing import Final

ASLEEP: Final = {"OMP_WAIT_POLICY": "passive"}
"""For a process whose loops are long, or that shares its processors."""
BRIEFLY_AWAKE: Final = {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "2000"}
"""For serving: awake for some 50 µs, half of that once there are more threads than processors."""
