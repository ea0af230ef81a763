"""Submit an adaptation job and follow it with nothing but a NATS client.

    python submit_and_follow.py job.json [--run RUN] [--server URL]

Everything used is public: subjects and headers of `contracts/schemas/asyncapi.json`, the
job of `contracts/schemas/job.json`. Files do not travel over the bus: the job names them by
absolute `file://` URIs that the services can read, or by `sha256:` digests already in their
artifact store. The same few calls exist in every NATS client: Go, Java, JavaScript, Rust, C#, …
URL is what `sluice credentials TENANT` prints, with the tenant's login; by default SLUICE_NATS_URL.
"""

import argparse
import asyncio
import json
import os
import secrets
from pathlib import Path

import nats
from nats.js.errors import APIError

LOCAL = "nats://127.0.0.1:4222"
ENDINGS = {
    "sluice.v1.registry.promoted": "promoted",
    "sluice.v1.diagnosis.train_declined": "declined",
    "sluice.v1.diagnosis.concluded": "diagnosed",
    "sluice.v1.diagnosis.rejected": "rejected",
    "sluice.v1.diagnosis.halted": "halted",
    "sluice.v1.diagnosis.cancelled": "cancelled",
    "sluice.v1.diagnosis.vetoed": "halted",
    "sluice.v1.curation.halted": "halted",
    "sluice.v1.curation.recalibration_required": "halted",
    "sluice.v1.training.stopped": "failed",
    "sluice.v1.registry.refused": "failed",
    "sluice.v1.any.failed": "failed",
    "sluice.v1.rollout.rolled_back": "rolled back",
    "sluice.v1.registry.withdrawn": "withdrawn",
}


async def main(job: dict, run: str | None, server: str) -> int:
    tenant = job["tenant"]
    run = run or f"{job['name']}-{secrets.token_hex(4)}"
    connection = await nats.connect(server)
    jetstream = connection.jetstream()

    async def on_progress(message) -> None:
        news = json.loads(message.data)
        print(
            f"  {news['stage']}: {news['message']} {news['done']}/{news.get('total')}", flush=True
        )

    # Progress is live news: subscribe before asking for work.
    await connection.subscribe(f"sluice.v1.progress.{tenant}.{run}.*", cb=on_progress)

    # A command is one message. Expecting an empty subject lets the broker refuse a taken run id.
    try:
        await jetstream.publish(
            f"sluice.v1.job.{tenant}.{run}.submit",
            json.dumps(job).encode(),
            stream="JOBS",
            headers={
                "Nats-Expected-Last-Subject-Sequence": "0",
                "traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
            },
        )
    except APIError as error:
        if error.err_code == 10071:
            print(f"run {tenant}/{run} exists already")
            return 1
        raise
    print(f"submitted {tenant}/{run}", flush=True)

    # The run log holds every fact in order, from the first one on, however late we come.
    facts = await jetstream.subscribe(
        f"sluice.v1.run.{tenant}.{run}.>", stream="RUN", ordered_consumer=True
    )
    async for message in facts.messages:
        kind = message.headers["ce-type"]
        print(f"{message.headers['ce-time']} {kind}", flush=True)
        outcome = ENDINGS.get(kind)
        if kind == "sluice.v1.evaluation.gate_judged":
            gate = json.loads(message.data)
            print(f"  {gate['gate']} {gate['verdict']}: {gate['summary']}", flush=True)
            outcome = None if gate["verdict"] == "passed" else "failed"
        if outcome:
            print(f"run {tenant}/{run}: {outcome}")
            await connection.close()
            return 0 if outcome in ("promoted", "declined") else 3
    return 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job")
    parser.add_argument("--run")
    parser.add_argument("--server", default=os.environ.get("SLUICE_NATS_URL", LOCAL))
    options = parser.parse_args()
    job = json.loads(Path(options.job).read_text(encoding="utf-8"))
    raise SystemExit(asyncio.run(main(job, options.run, options.server)))
