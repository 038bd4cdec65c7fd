#!/bin/sh
# Install the Debian packages that Parley's tests and benchmarks use, or say exactly what to install.
#   chromium: the browser of the end-to-end tests    fonts-dejavu-core: letters for its screenshots
#   kamailio, rtpengine: the SIP edge    baresip-core, sip-tester: softphones, and SIP to the letter
#   docker-compose: reads infra/compose, without a daemon
#   flite, festival and its voices, espeak-ng: the callers' voices    redis-server: a real Redis
set -eu
packages="chromium fonts-dejavu-core flite espeak-ng festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts redis-server
  kamailio kamailio-tls-modules rtpengine-daemon baresip-core sip-tester docker-compose"
missing=""
for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing Debian packages for the tests:$missing"
    # No service is to start by itself: the tests start their own. See invoke-rc.d(8).
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "The tests need these Debian packages. Install them, then run this again:"
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing"
    exit 1
fi
