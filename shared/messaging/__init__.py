"""How services talk: the run log, steps, leases, delivery, the broker.

Everything rides on NATS JetStream. `contracts.topology` says what exists; `provision` creates it;
a service's `handlers.py` registers steps; nothing else names a stream or a consumer.
"""
