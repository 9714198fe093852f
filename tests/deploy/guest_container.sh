#!/bin/sh
# Inside the guest kernel of tests/uml, whose cgroups are version 2: starts the container as
# integrations/container/run does, from the tree of the image, runs jobs, stops it, looks what is left.
#   guest_container.sh CHECKOUT ROOT-OF-THE-IMAGE ENGINE-OPTION...
set -eu
checkout=$1 image=$2
shift 2
export CONTAINER_ENGINE="$checkout/tests/deploy/guest_podman"
podman() { "$CONTAINER_ENGINE" "$@"; }

# The tree is on this machine, read-only; the engine wants to add mount points to it.
/usr/bin/python3 -I - <<'PYTHON'
import ctypes, glob, os
for module in glob.glob(f"/usr/lib/uml/modules/{os.uname().release}/kernel/fs/overlayfs/overlay.ko"):
    ctypes.CDLL(None).syscall(313, os.open(module, os.O_RDONLY), b"", 0)  # finit_module
PYTHON
mkdir -p /run/tree/upper /run/tree/work /run/tree/root
mount -t overlay -o "lowerdir=$image,upperdir=/run/tree/upper,workdir=/run/tree/work" tree /run/tree/root

"$checkout/integrations/container/run" -d --name sandrun --network host --log-driver k8s-file "$@" \
    --rootfs /run/tree/root /opt/sandrun/integrations/container/entrypoint --port 8444 --no-quotas
/usr/bin/python3 -I "$checkout/tests/deploy/client.py" http://127.0.0.1:8444 >/run/facts || {
    podman logs sandrun
    exit 1
}
group=$(find /sys/fs/cgroup -path '*libpod-*/sandrun-*' -name jobs)
swap=$(cat "${group%/jobs}/memory.swap.max")
seccomp=$(podman exec sandrun sed -n 's/^Seccomp:\t//p' /proc/1/status)
rights=$(podman exec sandrun sed -n 's/^CapBnd:\t//p' /proc/1/status)
begun=$(date +%s)
podman stop -t 5 sandrun >/dev/null
ended=$(date +%s)
left=$(find /sys/fs/cgroup -name '*sandrun*' -o -path '*libpod-*' -type d | wc -l)
cat /run/facts
echo "{\"swap_max\": \"$swap\", \"seccomp\": \"$seccomp\", \"bounding_set\": \"$rights\"," \
    "\"stop_seconds\": $((ended - begun)), \"left\": $left}"
