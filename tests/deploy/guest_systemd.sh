#!/bin/sh
# Inside the guest kernel of tests/uml: starts systemd as pid 1 of a pid namespace, with the units of
# /lib and of this script, runs one program as a unit, and ends with its exit code.
#   guest_systemd.sh CHECKOUT PROGRAM [ARGUMENT...]
# The checkout is seen in /opt/sandrun too, where the unit expects it, with what script/setup wrote
# about its place put right: nothing is installed, and nothing on this machine is changed.
set -eu
checkout=$1
shift
units=/run/units
mkdir -p $units /run/opt /run/none

mount -t tmpfs -o mode=755 tmpfs /run/opt
mkdir /run/opt/sandrun
mount --bind "$checkout" /run/opt/sandrun
for entry in /opt/*; do # an interpreter may live there
    if [ -d "$entry" ] && [ ! -e "/run$entry" ]; then
        mkdir "/run$entry"
        mount --bind "$entry" "/run$entry"
    fi
done
mount --rbind /run/opt /opt
read -r _ python <"$checkout/.venv/made-for"
echo "/opt/sandrun $python" >/run/made-for
mount --bind /run/made-for /opt/sandrun/.venv/made-for
echo /opt/sandrun >/run/sandrun.pth
for file in /opt/sandrun/.venv/lib/python3*/site-packages/sandrun.pth; do
    mount --bind /run/sandrun.pth "$file"
done

cat >$units/check.target <<'UNIT'
[Unit]
Requires=check.service
After=check.service
UNIT
cat >$units/check.service <<UNIT
[Unit]
DefaultDependencies=no
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=$*
ExecStopPost=/bin/sh -c 'echo \$\$EXIT_STATUS >/run/code'
Environment=PYTHONDONTWRITEBYTECODE=1
TimeoutStartSec=240
StandardOutput=file:/run/said
StandardError=inherit
UNIT
# Standard output is a console to systemd, which writes what it does there: only of use when it fails.
env SYSTEMD_UNIT_PATH=$units:/lib/systemd/system SYSTEMD_GENERATOR_PATH=/run/none \
    unshare --fork --pid --mount-proc --kill-child \
    /lib/systemd/systemd --system --unit=check.target --log-target=console >/run/boot 2>&1 || true
[ -f /run/code ] || { cat /run/boot; exit 1; }
[ "$(cat /run/code)" = 0 ] || { cat /run/boot; journalctl --no-pager -n 60 || true; }
cat /run/said
exit "$(cat /run/code)"
