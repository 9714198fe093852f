#!/bin/sh
# The first process of the guest: makes the mounts that a program expects, runs the one command that boot.py wrote beside
# this file, says its exit code behind the token, and switches the guest off.
# The root is the host's own tree, read-only; whatever is written lands in memory, or in a directory named in `mounts`.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
exchange=${0%/*}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup # as systemd mounts it
[ -c /dev/null ] || mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm /dev/pts
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
ln -sf /proc/self/fd /dev/fd
for stream in stdin:0 stdout:1 stderr:2; do ln -sf "/proc/self/fd/${stream#*:}" "/dev/${stream%:*}"; done
for place in /dev/shm /tmp /var/tmp; do mount -t tmpfs -o mode=1777 tmpfs "$place"; done
mount -t tmpfs -o mode=755 tmpfs /run

# hostfs names a directory of the host, whatever covers that path in the guest by now.
mkdir /run/exchange
mount -t hostfs -o "ro,$exchange" exchange /run/exchange
while read -r mode directory; do
    mkdir -p "$directory" && mount -t hostfs -o "$mode,$directory" host "$directory"
done </run/exchange/mounts

# As systemd leaves it: every mount shared. Code that forgets to make its own private shows itself here.
mount --make-rshared /
echo guest >/proc/sys/kernel/hostname
ip link set lo up 2>/dev/null || python3 -c 'import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH22x", b"lo", 1))'

read -r token </run/exchange/token
echo "$token start"
# Through a pipe, since the console is a terminal and programs behave differently on one. A process that outlives the
# command keeps the pipe open: it is given three seconds.
mkfifo /run/output
cat </run/output &
reader=$!
sh /run/exchange/command </dev/null >/run/output 2>&1
code=$?
(sleep 3 && kill "$reader") &
wait "$reader" 2>/dev/null
sync
echo "$token end $code"
echo o >/proc/sysrq-trigger
sleep 60
