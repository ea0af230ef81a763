"""What one sandboxed run may use. A program that wants more is ended, never served."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one run; each is enforced by the kernel or by the parent's clock."""

    wall_s: float = 5.0
    """From start to end, as the parent's clock has it."""
    cpu_s: int = 5
    """Processor time of each process."""
    memory_bytes: int = 512 << 20
    """Address space of each process; of all together where memory cgroups can be had."""
    processes: int = 32
    """Processes and threads at one time."""
    output_bytes: int = 64 << 10
    """Of standard output and of standard error, each; what comes later is not read."""
    file_bytes: int = 16 << 20
    """Of one file, and of the whole scratch space."""
    open_files: int = 64

    def shell(self) -> str:
        """The limits as `ulimit` lines for the shell that starts the program.

        Set inside the sandbox: its user namespace counts processes on its own, so the limit
        neither hits nor is hit by what runs outside.
        """
        return "; ".join(
            (
                "ulimit -c 0",
                f"ulimit -t {self.cpu_s}",
                f"ulimit -v {self.memory_bytes >> 10}",
                f"ulimit -f {self.file_bytes >> 9}",
                f"ulimit -n {self.open_files}",
                # the shell and bubblewrap's first process count as well
                f"ulimit -p {self.processes + 2}",
            )
        )
