#!/bin/sh
# Install the Debian packages that Parley's tests and benchmarks use, or say exactly what to install.
#   chromium: the browser of the end-to-end tests    fonts-dejavu-core: letters for its screenshots
#   flite, festival and its voices, espeak-ng: the callers' voices    redis-server: a real Redis
#   baresip-core, sip-tester: softphones that call, and SIP to the letter
set -eu
packages="chromium fonts-dejavu-core flite espeak-ng festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts redis-server baresip-core sip-tester"
missing=""
for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing Debian packages for the tests:$missing"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "The tests need these Debian packages. Install them, then run this again:"
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing"
    exit 1
fi
