#!/bin/sh
# Starts a Docker engine if none answers (as root, from Debian's packages), builds the images that
# are missing, and runs tests/containers. What it started, it stops. Exits 75 where no engine or no
# base image can be had: then nothing was tested.
set -eu
cd "$(dirname "$0")/.."
state="$(mktemp -d)"
stop() { [ ! -e "$state/pid" ] || kill "$(cat "$state/pid")"; }
unavailable() { echo "test-containers: not run: $1" >&2; exit 75; }
if ! docker info >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] || unavailable "no Docker engine answers, and only root can start one"
    if ! command -v dockerd >/dev/null || ! command -v docker-compose >/dev/null; then
        { apt-get update -qq &&
            apt-get install -y -qq --no-install-recommends docker.io docker-compose >/dev/null; } ||
            unavailable "docker.io cannot be installed"
    fi
    export DOCKER_HOST="unix://$state/docker.sock"
    trap stop EXIT
    dockerd --data-root "${DOCKER_DATA:-$PWD/.sluice/docker}" --host "$DOCKER_HOST" \
        --pidfile "$state/pid" >"$state/log" 2>&1 &
    for _ in $(seq 60); do docker info >/dev/null 2>&1 && break || sleep 1; done
    docker info >/dev/null || { cat "$state/log"; unavailable "dockerd does not start here"; }
fi
export DOCKER_BUILDKIT=0 # the plain builder needs no plugin
has() { docker image inspect "$1" >/dev/null 2>&1; }
if ! has sluiceway-postgres:local || ! has sluiceway-nats:local; then
    sh deploy/local-images.sh || unavailable "the base images cannot be built"
fi
for image in light ${MODELS:+models}; do # MODELS=1: the image with torch too, several GB
    docker build -q --network host --build-arg PYTHON_IMAGE=sluiceway-python:local \
        --build-arg PIP_INDEX_URL="${PIP_INDEX_URL:-https://pypi.org/simple}" \
        -f deploy/Dockerfile --target "$image" -t "sluiceway-$image:local" .
done
TESTCONTAINERS_RYUK_DISABLED=true TESTCONTAINERS_HOST_OVERRIDE=127.0.0.1 \
    .venv/bin/python -m pytest tests/containers "$@"
