"""Do what alerts want done, with nothing but a NATS client: a program is run for each due remedy.

    python act_on_remedies.py TENANT [--remedy rehearse] [--since N] [--run ./retrain.sh]

The subject is `sluice.v1.remedy.<tenant>.<deployment>.<remedy>`, the body is described by
`contracts/schemas/remedy.json`; the program reads it on its standard input. The next remedy comes
when the program has ended well. `--since` names the first message to read, so that a restart does
nothing twice.
"""

import argparse
import asyncio
import json
import os
import subprocess

import nats
from nats.js.api import ConsumerConfig, DeliverPolicy

LOCAL = "nats://127.0.0.1:4222"


async def main(options: argparse.Namespace) -> None:
    connection = await nats.connect(options.server)
    remedies = await connection.jetstream().subscribe(
        f"sluice.v1.remedy.{options.tenant}.*.{options.remedy}",
        stream="REMEDIES",
        ordered_consumer=True,
        config=ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=options.since
        ),
    )
    seen = 0
    async for message in remedies.messages:
        remedy = json.loads(message.data)
        place = message.metadata.sequence.stream
        print(
            f"{place}: {remedy['state']} {remedy['remedy']}: {remedy['deployment']} "
            f"({remedy['model']}, {remedy['metric']}); {remedy['advice']}",
            flush=True,
        )
        if options.run and remedy["state"] == "due" and remedy["by"] == "subscriber":
            await asyncio.to_thread(subprocess.run, options.run, input=message.data, check=True)
        seen += 1
        if seen == options.count:
            break
    await connection.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tenant")
    parser.add_argument("--remedy", default="*", help="only this one")
    parser.add_argument("--run", nargs=argparse.REMAINDER, help="program and arguments, last")
    parser.add_argument("--since", type=int, default=1, help="first message of the stream")
    parser.add_argument("--server", default=os.environ.get("SLUICE_NATS_URL", LOCAL))
    parser.add_argument("--count", type=int, help="stop after this many")
    asyncio.run(main(parser.parse_args()))
