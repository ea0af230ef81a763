"""Follow a tenant's alerts with nothing but a NATS client: those of the past, then live ones.

    python follow_alerts.py TENANT [--server URL] [--count N]

The subject is `sluice.v1.alert.<tenant>.<deployment>.<metric>`, the body is described by
`contracts/schemas/alert.json`. `id` is the same for every repetition of one incident.
URL is what `sluice credentials TENANT` prints, with the tenant's login; by default SLUICE_NATS_URL.
"""

import argparse
import asyncio
import json
import os

import nats

LOCAL = "nats://127.0.0.1:4222"


async def main(tenant: str, server: str, count: int | None) -> None:
    connection = await nats.connect(server)
    alerts = await connection.jetstream().subscribe(
        f"sluice.v1.alert.{tenant}.*.*", stream="ALERTS", ordered_consumer=True
    )
    seen = 0
    async for message in alerts.messages:
        alert = json.loads(message.data)
        print(
            f"{alert['severity']} {alert['state']}: {alert['deployment']} {alert['metric']} = "
            f"{alert['value']} (threshold {alert['threshold']}); {alert['remediation']}",
            flush=True,
        )
        seen += 1
        if seen == count:
            break
    await connection.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tenant")
    parser.add_argument("--server", default=os.environ.get("SLUICE_NATS_URL", LOCAL))
    parser.add_argument("--count", type=int, help="stop after this many")
    options = parser.parse_args()
    asyncio.run(main(options.tenant, options.server, options.count))
