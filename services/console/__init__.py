"""The web console: every run as it happens, from the same events any NATS client can read."""
