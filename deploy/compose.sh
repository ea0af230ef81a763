#!/bin/sh
# docker compose on deploy/compose.yaml, with secrets made once and kept in deploy/.env, mode 0600.
set -eu
cd "$(dirname "$0")"
if [ ! -e .env ]; then
    umask 077
    secret() { python3 -c 'import secrets; print(secrets.token_urlsafe(24))'; }
    printf 'POSTGRES_PASSWORD=%s\nSLUICE_CONSOLE_TOKEN=%s\n' "$(secret)" "$(secret)" > .env
    echo "secrets made: deploy/.env (the console's token is there)"
fi
# Traces need their collector: without the profile they stay in the services' own volume.
case " $* " in *" observe "*) ;; *) export SLUICE_OTLP_ENDPOINT= ;; esac
if docker compose version >/dev/null 2>&1; then exec docker compose --env-file .env -f compose.yaml "$@"; fi
exec docker-compose --env-file .env -f compose.yaml "$@"
