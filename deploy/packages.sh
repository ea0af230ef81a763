#!/bin/sh
# Installs the packages of packages.txt that are missing, as root; otherwise names them.
set -eu
cd "$(dirname "$0")"
command -v dpkg-query >/dev/null 2>&1 || exit 0
missing=""
for package in $(grep -v '^#' packages.txt); do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    # shellcheck disable=SC2086 # the list is meant to split
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "setup: tests that need these Debian packages will be skipped:$missing"
    echo "setup: install them with: sudo apt-get install$missing"
fi
