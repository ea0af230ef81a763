"""What the sandbox lets through: the program's own output. Nothing else, whoever tries."""

from __future__ import annotations

import os
import random
import socket
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from shared.errors import InvalidInput, Misconfigured
from shared.sandbox import Limits, Sandbox, SandboxResult
from shared.sandbox.cgroup import control_group
from shared.sandbox.sandbox import HOST_UID

SECRET = "the-host's-secret"
LIMITS = Limits(
    wall_s=2, cpu_s=1, memory_bytes=256 << 20, processes=16, output_bytes=4096, file_bytes=1 << 20
)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    try:
        made = Sandbox(LIMITS)
        made.run(["true"])
    except Misconfigured as reason:
        pytest.skip(f"{reason}; {reason.mend}")
    return made


@dataclass(frozen=True, slots=True)
class Host:
    """What an attack is after."""

    secret: Path
    port: int
    abstract: str
    visitors: list[str]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    secret = tmp_path_factory.mktemp("host") / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("SLUICE_TEST_SECRET", SECRET)
    visitors: list[str] = []
    tcp = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    abstract = f"sluice-test-{os.getpid()}"
    unix.bind("\0" + abstract)
    unix.listen()
    for name, server in (("tcp", tcp), ("unix", unix)):
        threading.Thread(target=_receive, args=(server, name, visitors), daemon=True).start()
    yield Host(secret, tcp.getsockname()[1], abstract, visitors)
    monkeypatch.undo()
    for server in (tcp, unix):
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def _receive(server: socket.socket, name: str, visitors: list[str]) -> None:
    while True:
        try:
            visit, _ = server.accept()
        except OSError:
            return
        visit.close()
        visitors.append(name)


def python(sandbox: Sandbox, code: str, **options: object) -> SandboxResult:
    return sandbox.run(["python3", "main.py"], files={"main.py": code.encode()}, **options)


def test_a_program_gets_its_files_and_its_input_and_gives_its_output(sandbox: Sandbox) -> None:
    code = "import sys, pathlib; print(pathlib.Path('d/x').read_text() + sys.stdin.read()); exit(3)"
    files = {"main.py": code.encode(), "d/x": b"given "}
    result = sandbox.run(["python3", "main.py"], files=files, stdin=b"asked")
    assert (result.stdout, result.exit_code, result.ending) == (b"given asked\n", 3, "exited")
    assert not result.succeeded


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", "."])
def test_a_file_outside_the_scratch_folder_is_refused(sandbox: Sandbox, name: str) -> None:
    with pytest.raises(InvalidInput, match="leaves the scratch folder"):
        sandbox.run(["true"], files={name: b""})


@pytest.mark.parametrize("level", ["inside", "on the host"])
def test_no_program_is_root(sandbox: Sandbox, level: str) -> None:
    if level == "inside":
        assert sandbox.run(["id", "-u"]).stdout.strip() not in (b"", b"0")
        return
    seen: set[int] = set()
    runner = threading.Thread(target=sandbox.run, args=(["sleep", "0.5137"],))
    runner.start()
    while runner.is_alive():
        for process in psutil.process_iter(["cmdline", "uids"]):
            if process.info["cmdline"] == ["sleep", "0.5137"]:
                seen.add(process.info["uids"].real)
        time.sleep(0.05)
    assert seen
    assert 0 not in seen


PROGRAMS = yaml.safe_load((Path(__file__).parent / "attacks.yaml").read_text(encoding="utf-8"))


def programs(kind: str) -> list[object]:
    return [pytest.param(code, id=name) for name, code in PROGRAMS[kind].items()]


def attack(sandbox: Sandbox, host: Host, code: str) -> None:
    given = {
        "secret": host.secret,
        "pid": os.getpid(),
        "port": host.port,
        "abstract": host.abstract,
    }
    result = python(sandbox, code.format(**given))
    assert not result.succeeded, result
    assert SECRET.encode() not in result.stdout + result.stderr
    assert b"root:" not in result.stdout
    assert len(result.stdout) <= LIMITS.output_bytes
    assert result.duration_s <= LIMITS.wall_s + 0.5
    assert host.visitors == []
    assert host.secret.read_text() == SECRET
    assert leftovers() == []


@pytest.fixture(autouse=True)
def _here_before() -> None:
    """What earlier tests of this worker have started and keep, as multiprocessing's tracker."""
    HERE_BEFORE.clear()
    HERE_BEFORE.update(child.pid for child in psutil.Process().children(recursive=True))


HERE_BEFORE: set[int] = set()


def leftovers() -> list[psutil.Process]:
    """Processes of a sandbox that are still there a moment after their run."""
    deadline = time.monotonic() + 0.5
    while left := _sandboxed():
        if time.monotonic() > deadline:
            return left
        time.sleep(0.02)
    return []


def _sandboxed() -> list[psutil.Process]:
    """Ours or nobody's: what has escaped from its parent is nobody's.

    Another test worker's sandboxes are below that worker, and none of our business.
    """
    here = psutil.Process()
    below = {child.pid for child in here.children(recursive=True)} - HERE_BEFORE
    beside = {peer.pid for peer in psutil.Process(here.ppid()).children(recursive=True)} - below
    return [
        process
        for process in psutil.process_iter(["uids", "status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE
        and (
            process.pid in below
            or (process.info["uids"].real == HOST_UID and process.pid not in beside)
        )
    ]


@pytest.mark.req("S4")
@pytest.mark.parametrize("code", programs("attacks"))
def test_an_attack_gets_nothing_and_leaves_nothing(sandbox: Sandbox, host: Host, code: str) -> None:
    attack(sandbox, host, code)


@pytest.mark.parametrize("code", programs("bombs"))
def test_a_bomb_goes_off_inside(sandbox: Sandbox, host: Host, code: str) -> None:
    with control_group(LIMITS) as groups:
        if os.geteuid() == 0 and not groups:
            pytest.skip("root without control groups lights no bombs")
    attack(sandbox, host, code)


@pytest.mark.req("S4")
@pytest.mark.timeout(900)
def test_attacks_drawn_one_after_another_get_nothing(
    sandbox: Sandbox, host: Host, seed: int, long: bool
) -> None:
    """What one attack leaves behind inside must not open the way for the next."""
    draw, chains = random.Random(seed), 100 if long else 5
    tried = Counter[str]()
    for _ in range(chains):
        chosen = draw.sample(sorted(PROGRAMS["attacks"]), 3)
        tried.update(chosen)
        attack(sandbox, host, chained([PROGRAMS["attacks"][name] for name in chosen]))
    print(f"{chains} programs of three attacks, {len(tried)} attacks among them", flush=True)


TRIED = """
try:
    exec({code!r}, {{{{}}}})
    sys.exit(0)
except SystemExit as left:
    if left.code in (0, None):
        raise
except BaseException:
    pass
"""


def chained(codes: list[str]) -> str:
    """A program that tries one after the other, and exits with 0 if any gets what it is after."""
    return "import sys\n" + "".join(TRIED.format(code=code) for code in codes) + "sys.exit(1)\n"


def test_a_sandbox_costs_little(sandbox: Sandbox, long: bool) -> None:
    median_s, p95_s = overhead(sandbox, 200 if long else 20)
    assert median_s <= 0.25  # a few ms on an idle machine; the bound is for one that is not
    if long:
        assert p95_s <= 0.05, "another busy program on this machine?"


def overhead(sandbox: Sandbox, count: int) -> tuple[float, float]:
    """Median and p95 of what `true` takes longer in the sandbox than without it, s.

    One beside the other, so that both meet the same machine.
    """
    took = []
    for _ in range(count):
        began = time.monotonic()
        subprocess.run(["/bin/true"], capture_output=True, check=True)
        bare_s = time.monotonic() - began
        took.append(sandbox.run(["/bin/true"]).duration_s - bare_s)
    took.sort()
    median_s, p95_s = statistics.median(took), took[int(count * 0.95)]
    print(f"{count} runs: median {median_s * 1e3:.0f} ms, p95 {p95_s * 1e3:.0f} ms", flush=True)
    return median_s, p95_s


def test_a_machine_without_bubblewrap_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Misconfigured, match="bwrap is not installed") as refused:
        Sandbox()
    assert "apt install bubblewrap" in refused.value.mend
