#!/bin/sh
# The tests talk to a real MQTT broker and build the firmware's C library. Install what is missing when we may.
set -eu
PATH="$PATH:/usr/sbin"
missing=
command -v mosquitto >/dev/null || missing="mosquitto"
command -v cc >/dev/null || command -v gcc >/dev/null || missing="$missing gcc libc6-dev"
command -v g++ >/dev/null || missing="$missing g++"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "missing: $missing; installing with apt-get"
    apt-get update -qq
    # shellcheck disable=SC2086 -- several packages
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    if command -v systemctl >/dev/null; then systemctl disable --now mosquitto >/dev/null 2>&1 || true; fi
else
    echo "missing: tests that need them are skipped (apt-get install $missing)"
fi
