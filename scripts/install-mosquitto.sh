#!/bin/sh
# The tests talk to a real MQTT broker. Install Debian's mosquitto when it is missing and we may.
set -eu
PATH="$PATH:/usr/sbin"
command -v mosquitto >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "mosquitto is missing: installing it with apt-get"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mosquitto >/dev/null
    if command -v systemctl >/dev/null; then systemctl disable --now mosquitto >/dev/null 2>&1 || true; fi
else
    echo "mosquitto is missing: tests that need a broker are skipped (apt-get install mosquitto)"
fi
