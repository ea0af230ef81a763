"""The sandbox: bubblewrap with every namespace of its own, an unprivileged user, and limits.

The program sees a read-only system, an empty scratch folder `/work` with the files it was given,
its own processes, and no network. It never runs as root: a parent that is root gives its
privileges up before bubblewrap starts, and the program's user is not root in its own namespace
either. When the run ends, for whatever reason, its process namespace ends with it, so nothing of it
is left.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from contracts.base import Problem
from shared.errors import InvalidInput, Misconfigured
from shared.sandbox.cgroup import control_group
from shared.sandbox.limits import Limits

Ending = Literal["exited", "killed", "wall_limit", "output_limit"]

HOST_UID = 64_321
"""Who a run is on the host when the parent is root: nobody's user, with no files and no group."""
INNER_UID = 1000
WORK = PurePosixPath("/work")
_SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/alternatives", "/etc/ld.so.cache")
_CHUNK = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxResult:
    """How one run ended, and what it said."""

    ending: Ending
    exit_code: int | None
    """Of the program; None when the parent ended it. Above 128: by signal `exit_code - 128`."""
    stdout: bytes
    stderr: bytes
    duration_s: float

    @property
    def succeeded(self) -> bool:
        return self.ending == "exited" and self.exit_code == 0


class Sandbox:
    """Runs programs of the host's read-only system on files it is given.

    Example: `Sandbox().run(["python3", "/work/main.py"], files={"main.py": b"print(1)"})`.

    Raises:
        Misconfigured: bubblewrap is missing, or cannot be used by an unprivileged user here.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._bwrap = _required("bwrap", "bubblewrap")
        self._drop = self._privileges_dropped() if os.geteuid() == 0 else ()

    @staticmethod
    def _privileges_dropped() -> tuple[str, ...]:
        user = (f"--reuid={HOST_UID}", f"--regid={HOST_UID}", "--clear-groups")
        return (_required("setpriv", "util-linux"), *user, "--inh-caps=-all", "--no-new-privs")

    def run(
        self,
        argv: Sequence[str],
        *,
        files: Mapping[str, bytes] | None = None,
        stdin: bytes = b"",
        limits: Limits | None = None,
    ) -> SandboxResult:
        """Run `argv` in `/work` with `files` (relative path → content) in it, read-only.

        Raises:
            InvalidInput: a file's path leaves the scratch folder.
            Misconfigured: the kernel refuses the namespaces.
        """
        limits = limits or self.limits
        began = time.monotonic()
        with ExitStack() as stack:
            groups = stack.enter_context(control_group(limits))
            given = stack.enter_context(_as_descriptors(files or {}))
            command = [*self._drop, self._bwrap, *_view(limits, given)]
            command += ["--", "/bin/sh", "-c", f'{limits.shell()}; exec "$@"', "sh", *argv]
            process = subprocess.Popen(
                _joining(groups, command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=list(given.values()),
                env={"PATH": "/usr/bin:/bin"},
                cwd="/",
                start_new_session=True,
            )
            ending, out, err = _attend(process, stdin, limits, began)
        code = process.returncode if ending == "exited" else None
        if code not in (None, 0) and err.startswith(b"bwrap:"):
            raise Misconfigured(
                f"bubblewrap cannot make a sandbox here: {err.decode(errors='replace').strip()}",
                mend="allow unprivileged user namespaces (user.max_user_namespaces above 0)",
            )
        if code is not None and (code < 0 or code > 128):
            ending = "killed"
        return SandboxResult(
            ending=ending,
            exit_code=code,
            stdout=out,
            stderr=err,
            duration_s=time.monotonic() - began,
        )


def _required(program: str, package: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise Misconfigured(
            f"{program} is not installed",
            mend=f"apt install {package}, or run `make setup` as root",
        )
    return found


def _joining(groups: Sequence[Path], command: Sequence[str]) -> list[str]:
    """`command`, started by a shell that enters the control groups first."""
    if not groups:
        return list(command)
    enter = "".join(f'echo $$ > "{group}"; ' for group in groups)
    return ["/bin/sh", "-c", f'{enter}exec "$@"', "sh", *command]


def _view(limits: Limits, given: Mapping[str, int]) -> list[str]:
    """What bubblewrap shows to the program."""
    options = [
        *("--unshare-user", "--unshare-all", "--disable-userns"),
        *("--die-with-parent", "--new-session"),
        *("--uid", str(INNER_UID), "--gid", str(INNER_UID), "--hostname", "sandbox"),
        *("--cap-drop", "ALL", "--clearenv"),
        *("--setenv", "PATH", "/usr/bin:/bin", "--setenv", "HOME", str(WORK)),
        *("--setenv", "LANG", "C.UTF-8", "--setenv", "PYTHONDONTWRITEBYTECODE", "1"),
    ]
    for path in _SYSTEM:
        if Path(path).is_symlink():
            options += ["--symlink", str(Path(path).readlink()), path]
        elif Path(path).exists():
            options += ["--ro-bind", path, path]
    size = str(limits.file_bytes)
    options += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    options += ["--size", size, "--tmpfs", "/tmp", "--size", size, "--tmpfs", str(WORK)]
    for name, descriptor in given.items():
        options += ["--ro-bind-data", str(descriptor), str(WORK / name)]
    return [*options, "--remount-ro", "/", "--chdir", str(WORK)]


@contextmanager
def _as_descriptors(files: Mapping[str, bytes]) -> Iterator[dict[str, int]]:
    """Each file's content behind a descriptor that the child inherits."""
    with ExitStack() as stack:
        given = {}
        for name, content in files.items():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not path.name or "\0" in name:
                raise InvalidInput(
                    [
                        Problem(
                            where=f"files[{name!r}]",
                            problem="the path leaves the scratch folder",
                            mend="give a path below it, such as tests/test_main.py",
                        )
                    ]
                )
            handle = stack.enter_context(tempfile.TemporaryFile())
            handle.write(content)
            handle.flush()
            handle.seek(0)
            given[name] = handle.fileno()
        yield given


def _attend(
    process: subprocess.Popen[bytes], stdin: bytes, limits: Limits, began: float
) -> tuple[Ending, bytes, bytes]:
    """Feed, listen and wait, within the limits; end everything else."""
    assert process.stdin is not None  # asked for
    assert process.stdout is not None
    assert process.stderr is not None
    too_much = threading.Event()

    def stop() -> None:
        too_much.set()
        _kill(process)

    listeners = [_Listener(pipe, limits.output_bytes, stop) for pipe in _pipes(process)]
    feeder = threading.Thread(target=_feed, args=(process.stdin, stdin), daemon=True)
    feeder.start()
    try:
        ended = _ends_within(process, max(0.0, began + limits.wall_s - time.monotonic()))
        ending: Ending = "exited" if ended else "wall_limit"
    finally:
        _kill(process)
    out, err = (listener.heard() for listener in listeners)
    feeder.join()
    return ("output_limit" if too_much.is_set() else ending), out, err


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], ...]:
    return tuple(pipe for pipe in (process.stdout, process.stderr) if pipe is not None)


def _ends_within(process: subprocess.Popen[bytes], wait_s: float) -> bool:
    """Told by the kernel: `Popen.wait` with a timeout looks after 8, 16, 32 … ms."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True  # a listener ended it, and has waited for it
    try:
        ends = select.poll()
        ends.register(descriptor, select.POLLIN)
        return bool(ends.poll(wait_s * 1e3))
    finally:
        os.close(descriptor)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):  # a listener was quicker
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _feed(pipe: IO[bytes], content: bytes) -> None:
    try:
        with pipe:
            pipe.write(content)
    except OSError:
        return  # the program ended without reading it all


class _Listener:
    """Reads a pipe to its end, keeps the first `limit` bytes, and calls `stop` at more."""

    def __init__(self, pipe: IO[bytes], limit: int, stop: Callable[[], None]) -> None:
        self._pipe = pipe
        self._limit = limit
        self._stop = stop
        self._kept = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._pipe:
            while chunk := os.read(self._pipe.fileno(), _CHUNK):
                self._kept += chunk[: self._limit + 1 - len(self._kept)]
                if len(self._kept) > self._limit:
                    self._stop()

    def heard(self) -> bytes:
        self._thread.join()
        return bytes(self._kept[: self._limit])
