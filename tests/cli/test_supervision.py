"""Programs are restarted when they die and end when they should, whatever ends first."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from services.cli.supervision.base import base_folder
from services.cli.supervision.home import HomeInUse, announce, locked_home
from services.cli.supervision.platform import BROKER_PAUSE_S, Plan
from services.cli.supervision.selection import select, user_programs
from services.cli.supervision.supervisor import Program, Supervisor, pause_s
from shared.errors import InvalidInput, Misconfigured
from shared.leash import leashed
from shared.messaging.accounts import OPERATOR, Logins
from shared.messaging.embedded import free_port

SERVICE = """\
import asyncio, json, os, nats
from contracts import subjects
from shared.settings import Settings

async def main():
    connection = await nats.connect(Settings().nats_url)
    async def answer(message):
        told = {"pid": os.getpid(), "base": os.environ.get("SLUICE_BASE")}
        await message.respond(json.dumps(told).encode())
    await connection.subscribe(subjects.health("echo"), cb=answer)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def until(condition, timeout_s: float = 30.0):
    async with asyncio.timeout(timeout_s):
        while not (found := condition()):
            await asyncio.sleep(0.05)
    return found


def program(name: str, code: str) -> Program:
    return Program(name=name, argv=(sys.executable, "-u", "-c", code))


async def test_a_program_that_dies_is_started_again_and_its_orphans_are_not_left(tmp_path) -> None:
    deaths = []
    supervisor = Supervisor(
        tmp_path, on_restart=lambda w, pause: deaths.append((w.exit_code, pause))
    )
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    watched = supervisor.start(program("parent", code))
    first = int((await until(watched.last_lines))[0])
    os.kill(watched.pid, signal.SIGKILL)
    await until(lambda: len(watched.last_lines()) == 2)
    assert deaths == [(-signal.SIGKILL, 0.5)]
    assert not alive(first)
    second = int(watched.last_lines()[-1])
    await supervisor.stop()
    await until(lambda: not alive(second))


async def test_a_program_that_ignores_sigterm_is_killed(tmp_path) -> None:
    supervisor = Supervisor(tmp_path, on_restart=lambda *_: None)
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(600)"
    watched = supervisor.start(program("stubborn", code))
    await until(watched.last_lines)
    pid = watched.pid
    await supervisor.stop(grace_s=0.2)
    assert not alive(pid)
    assert watched.exit_code == -signal.SIGKILL


def test_the_pause_doubles_up_to_a_limit() -> None:
    assert [pause_s(n) for n in (1, 2, 3, 99)] == [0.5, 1.0, 2.0, 30.0]
    assert [pause_s(n, BROKER_PAUSE_S) for n in (1, 2, 3, 99)] == [0.5, 1.0, 1.0, 1.0]


@pytest.mark.req("P6")
async def test_a_tenant_gets_a_login_from_a_running_platform_and_reaches_only_its_own(
    platform, sluice, settings
) -> None:
    """`late` is new to the broker; `demo` had its account from the start."""
    import nats

    _, ready, _ = platform
    for tenant in ("demo", "late"):
        found = await sluice("credentials", tenant, "--json")
        assert found.json["nats_url"] == ready["urls"]["nats"]
        assert os.stat(found.json["credentials"]).st_mode & 0o777 == 0o600  # noqa: PTH116
        assert (await sluice("credentials", tenant)).out.strip() == found.json["url"]
        connection = await nats.connect(found.json["url"])
        js = connection.jetstream(timeout=2)
        await js.publish(f"sluice.v1.job.{tenant}.r1.submit", b"{}", stream="JOBS")
        with pytest.raises(nats.errors.TimeoutError):
            await js.publish("sluice.v1.job.acme.r1.submit", b"{}", timeout=0.5)
        await connection.close()
    asked = await healed(with_login(ready["urls"]["nats"], settings.home), 0)
    assert asked["pid"] == ready["pids"]["echo"]


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_a_leashed_program_dies_with_a_killed_parent() -> None:
    code = (
        "import subprocess, sys, time\n"
        "from shared.leash import leashed\n"
        "program = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "child = subprocess.Popen(leashed(program))\n"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    child = int(await parent.stdout.readline())
    assert alive(child)
    parent.kill()
    await parent.wait()
    await until(lambda: not alive(child))


async def test_a_leash_whose_holder_is_gone_starts_nothing() -> None:
    argv = leashed([sys.executable, "-c", "print('ran')"])
    argv[4] = "999999999"
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert (process.returncode, out) == (1, b"")


def test_a_home_has_one_holder(tmp_path) -> None:
    with locked_home(tmp_path):
        announce(tmp_path, {"nats_url": "nats://127.0.0.1:1"})
        with pytest.raises(HomeInUse, match=f"pid {os.getpid()}"), locked_home(tmp_path):
            pass
    assert not (tmp_path / "up.json").exists()
    with locked_home(tmp_path):
        pass


def test_services_are_chosen_in_the_order_of_a_run() -> None:
    assert select((), ())[0] == "diagnosis"
    assert select(("serving,training",), ()) == ("training", "serving")
    assert "console" not in select((), ("console",))
    assert select(("none",), ()) == ()
    with pytest.raises(InvalidInput, match="no service trainign"):
        select(("trainign",), ())
    assert user_programs(("echo=acme.echo",)) == (("echo", "acme.echo"),)
    for bad in ("echo", "nats=x", "training=x", "A=b", "echo=a b"):
        with pytest.raises(InvalidInput):
            user_programs((bad,))


def test_the_base_is_a_folder_a_name_or_the_only_one(tmp_path) -> None:
    with pytest.raises(Misconfigured, match="which base model"):
        base_folder(tmp_path, None)
    small = tmp_path / "models" / "small"
    small.mkdir(parents=True)
    (small / "config.json").write_text("{}")
    assert base_folder(tmp_path, None) == base_folder(tmp_path, "small") == small.resolve()
    assert base_folder(tmp_path, str(small)) == small.resolve()
    with pytest.raises(Misconfigured, match="no checkpoint 'large'"):
        base_folder(tmp_path, "large")
    told = Plan(home=tmp_path, base="small", services=("serving",)).environment()
    assert told["SLUICE_BASE"] == str(small.resolve())
    assert "SLUICE_BASE" not in Plan(home=tmp_path, services=("training",)).environment()


def test_idle_threads_of_serving_alone_wait_awake_and_not_for_long(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    small = tmp_path / "models" / "small"
    small.mkdir(parents=True)
    (small / "config.json").write_text("{}")
    programs = {p.name: p.env for p in Plan(home=tmp_path).programs()}
    assert programs["serving"]["OMP_WAIT_POLICY"] == "active"
    assert int(programs["serving"]["GOMP_SPINCOUNT"]) < 10_000
    others = [env for name, env in programs.items() if name != "serving"]
    assert {env["OMP_WAIT_POLICY"] for env in others} == {"passive"}
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")
    [serving] = Plan(home=tmp_path, services=("serving",)).programs()
    assert serving.env["GOMP_SPINCOUNT"] == "0"


@pytest.fixture
async def platform(tmp_path, start, environment):
    """`sluice up` with one tiny service beside the broker."""
    (tmp_path / "echo_service.py").write_text(SERVICE)
    environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
    port = free_port()
    del environment["SLUICE_NATS_URL"]
    arguments = ("--port", port, "--only", "none", "--with", "echo=echo_service")
    process = await start(
        "up", *arguments, "--base", "tiny", "--ready-file", tmp_path / "ready", "--json"
    )
    async with asyncio.timeout(60):
        line = await process.stdout.readline()
        if not line:
            pytest.fail((await process.stderr.read()).decode())
        yield process, json.loads(line), port
        if process.returncode is None:
            process.terminate()
        await process.communicate()


def with_login(url: str, home: Path) -> str:
    """As `sluice up` knows the broker: every address there needs a login."""
    return url.replace("://", f"://{Logins(home).login(OPERATOR)}@")


async def ask(url: str) -> dict | None:
    import nats

    from services.cli.supervision.health import ask as health

    try:
        connection = await nats.connect(url, allow_reconnect=False, connect_timeout=1)
    except (OSError, nats.errors.Error, TimeoutError):
        return None
    try:
        return await health(connection, "echo")
    finally:
        await connection.close()


async def healed(url: str, pid: int) -> dict:
    async with asyncio.timeout(30):
        while (answer := await ask(url)) is None or answer["pid"] == pid:
            await asyncio.sleep(0.1)
    return answer


@pytest.mark.req("P7")
async def test_one_command_starts_heals_and_ends_everything(
    platform, sluice, start, tmp_path, settings
) -> None:
    process, ready, port = platform
    url = f"nats://127.0.0.1:{port}"
    assert ready["urls"]["nats"] == url
    assert (tmp_path / "ready").exists()
    url = with_login(url, settings.home)
    first = await ask(url)
    assert (first["pid"], first["base"]) == (ready["pids"]["echo"], "tiny")

    found = await sluice("provision", "--json")  # it names no broker and finds the one of `up`
    assert found.json["nats_url"] == ready["urls"]["nats"]
    other = await start("up", "--port", free_port(), "--only", "none")
    _, err = await other.communicate()
    assert other.returncode == 1
    assert b"is in use by `sluice up`" in err

    os.kill(first["pid"], signal.SIGKILL)
    second = await healed(url, first["pid"])
    os.kill(ready["pids"]["nats"], signal.SIGKILL)
    third = await healed(url, 0)
    assert third["pid"] == second["pid"]

    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 0
    assert b"echo ended (-9)" in err
    assert err.endswith(b"stopping\nstopped\n")
    assert not alive(third["pid"])
    assert not (tmp_path / "ready").exists()
    assert not (settings.home / "up.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_killing_up_itself_leaves_nothing_running(platform) -> None:
    process, ready, _ = platform
    process.kill()
    await process.wait()
    await until(lambda: not any(alive(pid) for pid in ready["pids"].values()))


async def test_a_service_that_refuses_to_start_is_shown_with_its_words(
    start, tmp_path, environment
) -> None:
    (tmp_path / "sour.py").write_text("import sys; print('sour: no lemon'); sys.exit(78)")
    environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
    process = await start("up", "--port", free_port(), "--only", "none", "--with", "sour=sour")
    async with asyncio.timeout(60):
        _, err = await process.communicate()
    assert process.returncode == 1
    assert b"error: sour refused to start (exit 78):\n  sour: no lemon" in err


async def test_a_taken_port_is_named(start, nats_server) -> None:
    process = await start("up", "--port", nats_server.port, "--only", "none")
    async with asyncio.timeout(60):
        _, err = await process.communicate()
    assert process.returncode == 1
    assert f"error: port {nats_server.port} is taken".encode() in err
    assert b"choose another with --port" in err
