"""How OpenMP's threads wait between two parallel loops: libgomp reads it when it is loaded.

For the environment of a process to be started. A decoding step is hundreds of short loops, and a
thread that sleeps between them takes long to wake (`benchmarks/RESULTS.md`); one that spins without
end takes a processor from the other services.
"""

from __future__ import annotations

from typing import Final

ASLEEP: Final = {"OMP_WAIT_POLICY": "passive"}
"""For a process whose loops are long, or that shares its processors."""
BRIEFLY_AWAKE: Final = {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "2000"}
"""For serving: awake for 2,000 looks, 1,000 once there are more threads than processors."""
