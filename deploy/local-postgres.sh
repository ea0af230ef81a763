#!/bin/sh
# What the official image's entry point does with POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB.
set -eu
data=/var/lib/postgresql/data
if [ ! -e "$data/PG_VERSION" ]; then
    password="$(mktemp)"
    printf '%s\n' "$POSTGRES_PASSWORD" > "$password"
    initdb -D "$data" -E UTF8 -U "$POSTGRES_USER" --pwfile="$password" -A scram-sha-256 >/dev/null
    rm "$password"
    echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
    pg_ctl -D "$data" -w -o "-c listen_addresses=" start >/dev/null
    PGPASSWORD="$POSTGRES_PASSWORD" createdb -U "$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl -D "$data" -w stop >/dev/null
fi
exec postgres -D "$data" -c listen_addresses='*'
