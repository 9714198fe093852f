"""`script/mutate-walls`: every wall is taken out of a copy of the code, one at a time, and a test
that is named here must fail because of it. A test that nobody ever saw fail proves nothing.

    python -m tests.attacks.walls [NAME]...

A wall is noticed when its test fails in what it does itself, not in what is set up or looked at
around it, while honest jobs still run: a server that is merely broken has shown nothing. So a
mutation may need more than one edit, to leave the rest of the house standing; and where two walls
stand one behind the other, the one in front is opened too, or the second is never touched.

No mutation may harm the machine that it is tried on: none hands out what the kernel would load,
log or change for everybody. Exit code 0 when every wall is noticed.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from tests.attacks.arena import Attacker
from tests.attacks.checkout import REPOSITORY, checkout

SECONDS = 300  # for the tests of one wall, however busy the machine


class Edit(NamedTuple):
    """`old` stands exactly once in `file`, or the table is stale."""

    file: str
    old: str
    new: str


class Wall(NamedTuple):
    name: str
    tests: tuple[str, ...]  # pytest's ids, below tests/attacks
    edits: tuple[Edit, ...]


def wall(name: str, tests: str, *edits: tuple[str, str, str]) -> Wall:
    return Wall(name, tuple(tests.split()), tuple(Edit(*edit) for edit in edits))


LAUNCHER, INSIDE, POLICY = "sandbox/launcher.py", "sandbox/inside.py", "sandbox/policy.py"
TEMPLATE, LINUX, CGROUPS = "sandbox/template.py", "sandbox/linux.py", "sandbox/cgroups.py"
COLLECT, UNTAR, UNZIP = "sandbox/collect.py", "sandbox/untar.py", "sandbox/unzip.py"
MEMBERS, SANDBOX, PRIVILEGES = "sandbox/members.py", "sandbox/sandbox.py", "sandbox/privileges.py"
ENGINE, DOWNLOADS, GUARD = "jobs/engine.py", "jobs/api/downloads.py", "jobs/api/middleware.py"
SOCKETS, WEBSOCKET = "jobs/api/sockets.py", "jobs/api/websocket.py"

NAMESPACES = "test_ls.py::test_every_namespace_is_a_jobs_own"
GIVEN_UP = "test_ls.py::test_no_process_of_a_job_has_a_privilege"
LIMITS = "test_pr.py::test_a_job_is_shown_its_own_limits"
FLOODED = "test_ws.py::test_whoever_sends_for_ever_is_not_read_for_ever"
NO_OUTPUTS = "test_oc.py::test_links_and_pipes_are_nobodys_outputs[outputs0-kept0]"
NO_MEMBERS = "test_ar.py::test_a_member_that_must_not_be_is_refused"
PROBED = "test_uc.py::test_nobody_is_told_what_others_read_in_usr"
ADVISED = "test_sc.py::test_advice_and_futexes_that_serve_attacks_only_are_not_there"
NOTHING = "        pass\n"

# As the job's user of the machine itself, whose sysctls are not ours to write.
_NO_USER_NAMESPACE = (
    (LAUNCHER, "    linux.CLONE_NEWUSER\n    | linux.CLONE_NEWPID\n", "    linux.CLONE_NEWPID\n"),
    (LAUNCHER, "                _write_map(child.pid, uid)\n", ""),
    (INSIDE, "    os.setresgid(UID, UID, UID)\n    os.setresuid(UID, UID, UID)\n",
     "    uid = os.fstat(1).st_uid\n"
     "    os.setresgid(uid, uid, uid)\n    os.setresuid(uid, uid, uid)\n"),
    (INSIDE, '    ("sysctls", _sysctls),\n', ""),
)  # fmt: skip

# The first that fits; no conditions: always.
_ALWAYS = "(Case(()),)"

WALLS = [
    # --- namespaces and identity
    wall("user-namespace", NAMESPACES, *_NO_USER_NAMESPACE),
    wall(
        "pid-namespace", NAMESPACES,
        (LAUNCHER, "    | linux.CLONE_NEWPID\n", ""),
        # Without one of its own it may not mount a /proc.
        (INSIDE, '    ("proc", _proc),\n', ""),
    ),
    wall(
        "mount-namespace", "test_dp.py::test_a_deleted_job_is_gone_at_once_and_for_all",
        *_NO_USER_NAMESPACE,  # or it may not mount anything in the launcher's
        (LAUNCHER, "    | linux.CLONE_NEWNS\n", ""),
        (INSIDE, '    ("proc", _proc),\n', ""),  # the launcher needs its own
        ("jobs/conf.py", "] = 2 * (os.cpu_count() or 1)", "] = 1"),  # two would share one /job
    ),
    wall(
        "network-namespace", NAMESPACES,
        (LAUNCHER, "        linux.unshare(linux.CLONE_NEWNET)\n", ""),
        (LAUNCHER, 'if not names <= {"lo", *_IDLE_TUNNELS}:', "if False:"),
    ),
    wall(
        "network-namespace-of-its-own",
        "test_xj.py::test_names_and_ports_of_two_jobs_do_not_meet",
        (LAUNCHER, "        return self._free.pop()\n", "        return self._free[-1]\n"),
        (LAUNCHER, "        self._free.append(slot)\n", NOTHING),
    ),
    wall("ipc-namespace", NAMESPACES, (LAUNCHER, "    | linux.CLONE_NEWIPC\n", "")),
    wall(
        "uts-namespace", NAMESPACES,
        (LAUNCHER, "    | linux.CLONE_NEWUTS\n", ""),
        (INSIDE, '    ("hostname", _hostname),\n', ""),  # the machine's, and not ours to change
    ),
    wall(
        "cgroup-namespace", NAMESPACES,
        (INSIDE, '    ("cgroup namespace", _cgroup),\n', ""),
    ),
    wall(
        "uid-of-its-own",
        "test_ls.py::test_a_job_is_one_unprivileged_user_in_no_group_and_can_be_nobody_else",
        (LAUNCHER, "uid = FIRST_UID + self._next_uid\n", "uid = FIRST_UID\n"),
        (LAUNCHER, "if uid not in self._uids:", "if True:"),
    ),
    wall(
        "no-more-user-namespaces", "test_ls.py::test_no_namespace_can_be_made_by_any_call",
        (INSIDE, '"max_user_namespaces": "0"', '"max_user_namespaces": "100"'),
    ),
    wall(
        "inotify-instances", "test_sc.py::test_watches_of_files_are_few",
        (INSIDE, '"max_inotify_instances": "8"', '"max_inotify_instances": "100000"'),
    ),
    wall(
        "inotify-watches", "test_sc.py::test_watches_of_files_are_few",
        (INSIDE, '"max_inotify_watches": "512"', '"max_inotify_watches": "100000"'),
    ),
    wall(
        "charged-to-the-jobs-own-uid",
        "test_uc.py::test_what_jobs_watch_and_queue_is_counted_for_themselves",
        (LAUNCHER, "    os.seteuid(uid)\n", ""),
    ),
    # --- privileges
    wall(
        "capabilities", GIVEN_UP,
        (INSIDE, '    ("capabilities", _capabilities),\n', ""),
    ),
    wall("bounding-set", GIVEN_UP, (PRIVILEGES, "    prctl.capbset.limit()\n", "")),
    wall(
        "no-new-privileges", GIVEN_UP,
        # A filter may then be loaded by whoever has capabilities; so these go after it.
        (INSIDE,
         '    ("capabilities", _capabilities),\n'
         '    ("no new privileges", _no_new_privileges),\n'
         '    ("seccomp", _seccomp),\n',
         '    ("seccomp", _seccomp),\n    ("capabilities", _capabilities),\n'),
        (POLICY, '"capset setfsuid setfsgid"', '"setfsuid setfsgid"'),
        (POLICY, "setresgid setgroups capget", "setresgid setgroups capget capset"),
        (POLICY, "15, 16, 21, 23,", "15, 16, 21, 23, 24,"),  # PR_CAPBSET_DROP
    ),
    wall(
        "setuid-bits-of-usr", "test_ls.py::test_a_setuid_program_gives_nothing",
        (LINUX, "_MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV",
         "_MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV"),
    ),
    wall(
        "setuid-bits-of-the-job", "test_ls.py::test_a_setuid_program_gives_nothing",
        (LINUX, "**noswap}, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)",
         "**noswap}, MOUNT_ATTR_NODEV)"),
    ),
    wall(
        "devices-of-the-job", "test_ls.py::test_a_setuid_program_gives_nothing",
        (LINUX, "**noswap}, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)",
         "**noswap}, MOUNT_ATTR_NOSUID)"),
    ),
    # --- the filter
    wall(
        "seccomp", "test_sc.py::test_a_personality_cannot_be_taken",
        (INSIDE, '    ("seccomp", _seccomp),\n', ""),
    ),
    wall(
        "seccomp-clone", "test_ab.py::test_no_bit_of_clone_makes_a_namespace",
        (POLICY, "        _CLONES,\n", f"        {_ALWAYS},\n"),
    ),
    wall(
        "seccomp-clone-files", "test_uc.py::test_locks_that_outlive_their_process_cannot_be_had",
        (POLICY, "    Case((Argument(0, _SHARES, _CLONE_FILES),), errno.EPERM),\n", ""),
        (POLICY, "for shared in (0, _CLONE_THREAD, _SHARES)",
         "for shared in (0, _CLONE_FILES, _CLONE_THREAD, _SHARES)"),
    ),
    wall(
        # Of the others some would have the kernel load a module.
        "seccomp-socket", "test_ab.py::test_no_family_but_three_is_there",
        (POLICY, "        _SOCKETS,\n",
         "        (*_SOCKETS, Case((Argument(0, _INT, 16), Argument(2, _INT, 0)))),\n"),
    ),
    wall(
        "seccomp-socketpair", "test_ab.py::test_no_family_but_three_is_there",
        (POLICY, "SOCKETPAIR_FAMILIES = (1,)", "SOCKETPAIR_FAMILIES = (1, 2)"),
    ),
    wall(
        "seccomp-setsockopt", "test_ab.py::test_no_option_of_a_socket_reaches_more_of_the_kernel",
        (POLICY,
         "        tuple(\n"
         "            Case((Argument(1, _INT, level), Argument(2, _INT, option)))\n"
         "            for level, options in SOCKET_OPTIONS.items()\n"
         "            for option in options\n"
         "        ),\n",
         f"        {_ALWAYS},\n"),
    ),
    wall(
        "seccomp-urgent-data", "test_ab.py::test_nothing_is_sent_out_of_band",
        (POLICY, "            _without(index, _NOT_URGENT, errno.EOPNOTSUPP),\n",
         f"            {_ALWAYS},\n"),
    ),
    wall(
        "seccomp-ioctl",
        "test_sc.py::test_ioctls_ask_and_set_what_is_the_descriptors_own_and_nothing_more",
        (POLICY, "_one_of(1, IOCTLS)", _ALWAYS),
    ),
    wall(
        "seccomp-fcntl", "test_fd.py::test_nobody_is_held_up_or_watched_by_leases_and_notices",
        (POLICY, "*_one_of(1, FCNTLS),", "Case(()),"),
    ),
    wall(
        "seccomp-prctl", "test_sc.py::test_prctl_and_arch_prctl_grant_nothing",
        (POLICY, "_one_of(0, PRCTLS)", _ALWAYS),
    ),
    wall(
        "seccomp-arch-prctl", "test_sc.py::test_prctl_and_arch_prctl_grant_nothing",
        (POLICY, "_one_of(0, ARCH_PRCTLS)", _ALWAYS),
    ),
    wall(
        "seccomp-prlimit",
        "test_fd.py::test_pid_1_keeps_its_priority_and_tells_of_the_end_at_once",
        (POLICY, "        _one_of(0, PRLIMIT_PIDS),\n", f"        {_ALWAYS},\n"),
    ),
    wall(
        "seccomp-setpriority",
        "test_fd.py::test_pid_1_keeps_its_priority_and_tells_of_the_end_at_once",
        (POLICY, "(Case((Argument(0, _INT, 0), Argument(1, _INT, 0))),)", _ALWAYS),
    ),
    wall(
        "seccomp-huge-pages",
        "test_rx.py::test_huge_pages_locked_pages_and_large_stacks_are_not_to_be_had",
        (POLICY, "_without(3, (0x40000,), errno.ENOMEM)", _ALWAYS),
        (POLICY, "_without(1, (0x4,), errno.ENOMEM)", _ALWAYS),
    ),
    wall("seccomp-madvise", ADVISED, (POLICY, "_one_of(2, MADVICE)", _ALWAYS)),
    wall(
        "seccomp-fadvise", PROBED,
        (POLICY, "_one_of(3, FADVICE)", _ALWAYS),
    ),
    wall(
        "seccomp-preadv2", PROBED,
        (POLICY, "_without(5, (0x8, 0x80), errno.EOPNOTSUPP)", _ALWAYS),
    ),
    wall(
        "seccomp-inotify", PROBED,
        (POLICY, "_without(2, (0x1, 0x20, 0x10), errno.ENOSYS)", _ALWAYS),
    ),
    wall(
        # The one that the kernel complains of in its log is not among them.
        "seccomp-futex",
        ADVISED,
        (POLICY, "FUTEXES = (0, 1, ", "FUTEXES = (6, 7, 8, 0, 1, "),
    ),
    # --- limits
    wall(
        "memory-limit",
        "test_rx.py::test_more_memory_than_allowed_ends_the_job_and_the_server_stays_as_it_is",
        (CGROUPS, 'memory.write("memory.max", str(limits.memory_bytes))', "pass"),
        (CGROUPS, "            _limit_v1(memory, str(limits.memory_bytes))\n",
         "            pass\n"),
    ),
    wall(
        "pids-limit", "test_rx.py::test_threads_count_as_processes_do",
        (CGROUPS, 'pids.write("pids.max", str(limits.tasks + 1))', "pass"),
    ),
    wall(
        "cpu-limit", "test_rx.py::test_each_job_has_a_quota_of_one_cpu",
        (CGROUPS, 'cpu.write("cpu.max", f"{quota} {_PERIOD_USEC}")', "pass"),
        (CGROUPS, 'cpu.write("cpu.cfs_quota_us", str(quota))', "pass"),
    ),
    wall(
        # Late, not never, as the next one: whoever waits for the end of a job waits for ever.
        "cpu-seconds", "test_ae.py::test_the_cpu_limit_ends_32_processes_as_it_ends_one",
        (LAUNCHER, "child.limits.cpu_seconds * 1_000_000", "child.limits.cpu_seconds * 10_000_000"),
    ),
    wall(
        "time-out", "test_fd.py::test_a_ring_of_sockets_holds_no_job_beyond_its_end",
        (LAUNCHER, "self.started + self.limits.wall_seconds",
         "self.started + 20 * self.limits.wall_seconds"),
    ),
    wall(
        "disk-size", LIMITS,
        (LAUNCHER, '"size": str(limits.disk_bytes)', '"size": "0"'),
    ),
    wall(
        "disk-inodes", LIMITS,
        (LAUNCHER, '"nr_inodes": str(limits.inodes)', '"nr_inodes": "0"'),
    ),
    wall(
        "limit-of-descriptors", LIMITS,
        (INSIDE, "        resource.RLIMIT_NOFILE: limits.descriptors,\n", ""),
    ),
    wall(
        "limit-of-file-sizes",
        "test_rx.py::test_files_larger_than_the_disk_and_too_many_are_refused",
        (INSIDE, "        resource.RLIMIT_FSIZE: limits.disk_bytes,\n", ""),
    ),
    wall(
        "limit-of-cores", LIMITS,
        (INSIDE, "resource.RLIMIT_CORE: 1,", "resource.RLIMIT_CORE: resource.RLIM_INFINITY,"),
    ),
    # --- files
    wall(
        "read-only-root", "test_ls.py::test_nothing_of_the_system_can_be_changed",
        (TEMPLATE, "linux.MS_REMOUNT | linux.MS_RDONLY | linux.MS_NOSUID",
         "linux.MS_REMOUNT | linux.MS_NOSUID"),
    ),
    wall(
        "read-only-usr", "test_ls.py::test_nothing_of_the_system_can_be_changed",
        (TEMPLATE, '    linux.read_only(f"{root}/usr")\n', ""),
    ),
    wall(
        "nothing-of-the-machines-root", "test_ls.py::test_no_path_leads_to_the_machines_files",
        # Elsewhere: where it is under the new one, the kernel makes no user namespace.
        (TEMPLATE, '    linux.pivot_root(".", ".")',
         '    os.mkdir("old")\n    linux.pivot_root(".", "old")'),
        (TEMPLATE, '    linux.umount(".", linux.MNT_DETACH)\n', ""),
    ),
    wall(
        "proc-of-processes-only", "test_pr.py::test_proc_tells_nothing_of_the_machine",
        (INSIDE, '"subset=pid,hidepid=2"', '"hidepid=2"'),
    ),
    wall(
        "proc-hides-others",
        "test_pr.py::test_proc_is_hidden_by_the_kernel_and_not_by_masks",
        (INSIDE, '"subset=pid,hidepid=2"', '"subset=pid"'),
    ),
    wall(
        "descriptors-closed", "test_fd.py::test_pid_1_holds_nothing_of_the_launchers",
        (INSIDE, "        os.closerange(low, fd)\n", ""),
        (INSIDE, "    os.closerange(low, 2**31 - 1)\n", ""),
    ),
    wall(
        "environment",
        "test_ls.py::test_the_environment_is_the_documented_one_and_nothing_of_the_servers",
        (INSIDE, "words, {os.fsencode(k)", "words, os.environb | {os.fsencode(k)"),
        ("sandbox/keeper.py",
         '            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",\n', "            **os.environ,\n"),
    ),
    wall(
        "survivors-killed",
        "test_lc.py::test_a_daemon_neither_outlives_its_job_nor_delays_it_nor_writes_after_it",
        (INSIDE, '            _say(control, {"exit": status, "step": step})\n',
         "            with contextlib.suppress(ChildProcessError):\n"
         "                while True:\n"
         "                    os.wait()\n"
         '            _say(control, {"exit": status, "step": step})\n'),
    ),
    # --- collection
    wall(
        "collection-follows-no-link", NO_OUTPUTS,
        (COLLECT,
         "            status = os.stat(name, dir_fd=folder, follow_symlinks=False)\n"
         "            if stat.S_ISREG(status.st_mode):\n",
         # To files, and none of /proc: the collector shall not fail on the way.
         "            status = os.stat(name, dir_fd=folder, follow_symlinks=False)\n"
         "            link = f'/proc/self/fd/{folder}/{name}'\n"
         "            if os.path.isfile(link) and os.path.getsize(link):\n"
         "                status = os.stat(link)\n"
         "            if stat.S_ISREG(status.st_mode):\n"),
        (COLLECT, "os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK", "os.O_RDONLY | os.O_NONBLOCK"),
    ),
    wall(
        "collection-of-regular-files", NO_OUTPUTS,
        (COLLECT, "            if stat.S_ISREG(status.st_mode):\n",
         "            if stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode):\n"),
        (COLLECT, "if not stat.S_ISREG(os.fstat(fd).st_mode):", "if False:"),
    ),
    wall(
        "collection-does-not-wait", NO_OUTPUTS,
        (COLLECT, "            if stat.S_ISREG(status.st_mode):\n",
         "            if stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode):\n"),
        (COLLECT, "os.O_NOFOLLOW | os.O_NONBLOCK |", "os.O_NOFOLLOW |"),
    ),
    wall(
        "collection-is-sealed", "test_fd.py::test_no_lie_of_the_collector_is_served",
        (COLLECT, "    channel.seal(store)\n", ""),
        (SANDBOX, "channel.sealed(store)\n", "True\n"),
    ),
    wall(
        "collection-within-the-disk",
        "test_rx.py::test_files_larger_than_the_disk_and_too_many_are_refused",
        (COLLECT, " or status.st_size > left or", " or"),
    ),
    # --- uploads
    wall(
        "no-name-of-a-member-leads-out",
        "test_ar.py::test_a_name_that_leads_elsewhere_is_refused[tar.gz]",
        (MEMBERS, 'if ".." in parts:', "if False:"),
    ),
    wall(
        "no-name-of-a-file-leads-out",
        "test_ar.py::test_a_name_that_leads_elsewhere_is_refused[loose]",
        ("jobs/bundle.py", 'if ".." in parts:', "if False:"),
    ),
    wall(
        "no-link-in-a-tar", f"{NO_MEMBERS}[tar.gz]",
        (UNTAR, "        _refuse_odd(info)\n",
         "        if not (info.isdir() or info.isfile()):\n            continue\n"),
    ),
    wall("no-link-in-a-zip", f"{NO_MEMBERS}[zip]", (UNZIP, "        _refuse_odd(row)\n", "")),
    wall(
        "no-tar-unpacks-to-more", "test_ar.py::test_a_bomb_goes_off_in_a_sandbox_within_3_seconds",
        (UNTAR, "if self._left < 0:", "if False:"),
        (UNTAR, "if total > disk_bytes:", "if False:"),
    ),
    wall(
        "no-zip-unpacks-to-more", "test_ar.py::test_a_damaged_archive_is_refused_and_costs_nothing",
        (UNZIP, "if total > disk_bytes:", "if False:"),
    ),
    wall(
        "few-members", "test_ar.py::test_a_zip_of_too_many_or_shared_members_is_refused",
        (MEMBERS, "if self._count > MAX_MEMBERS:", "if False:"),
        (UNZIP, "if count > MAX_MEMBERS:", "if False:"),
    ),
    wall(
        "archives-are-read-inside",
        "test_ar.py::test_an_archive_is_read_and_unpacked_only_behind_all_walls",
        (ENGINE, "return await self.runner.inspect(archive, reservation.draw_inspection)",
         "from sandbox import model, unpack\n"
         "                found = unpack.inspect(archive, 100 << 20)\n"
         "                members = tuple(model.Member(*row) for row in found['members'])\n"
         "                text = found['job_json']\n"
         "                return Inspection(members, text and text.encode('latin-1'))"),
    ),
    wall(
        "uploads-are-sealed", "test_bw.py::test_what_was_inspected_cannot_change_any_more",
        ("jobs/memory.py", "        channel.seal(self.fd)\n", ""),
        # The signer takes nothing that is not sealed; no honest job would end.
        ("jobs/identity.py", "memory.seal().fd", "channel.seal(memory.fd) or memory.fd"),
    ),
    wall(
        "cap-of-logs", "test_lg.py::test_both_logs_are_kept_apart_and_capped_each",
        ("jobs/logs.py", "name: Stream(cap_bytes)", "name: Stream(1 << 40)"),
    ),
    # --- clients
    wall(
        "downloads-are-attachments", "test_wb.py::test_no_output_is_run_by_a_browser",
        (DOWNLOADS, 'return f"attachment; ', 'return f"inline; '),
    ),
    wall(
        "downloads-in-a-browsers-sandbox", "test_wb.py::test_no_output_is_run_by_a_browser",
        (DOWNLOADS,
         '        "Content-Security-Policy": "sandbox; default-src \'none\'",\n    }\n    if part:',
         "    }\n    if part:"),
    ),
    wall(
        "no-other-origin", "test_wb.py::test_another_web_site_starts_nothing_and_reads_nothing",
        (GUARD, "if origin is not None and not _is_same_host(origin, host):", "if False:"),
    ),
    wall(
        "no-other-site", "test_wb.py::test_another_web_site_starts_nothing_and_reads_nothing",
        (GUARD, "if fetch_site is not None and fetch_site not in _OWN_SITES:", "if False:"),
    ),
    wall(
        "no-other-sites-sockets", "test_ws.py::test_only_our_own_pages_and_programs_open_a_socket",
        (SOCKETS, 'return known and refusal_of(site, "GET", header, handshake=True) is None',
         "return known"),
    ),
    wall(
        "sockets-are-read-as-looked-at", f"{FLOODED}[empty-text]",
        (WEBSOCKET,
         "        self.transport.pauseProducing()  # until somebody has taken what came\n", ""),
    ),
    wall(
        "sockets-of-few-frames", f"{FLOODED}[endless-continuation]",
        (WEBSOCKET, "if self._frames > FRAMES:", "if False:"),
    ),
    wall(
        "pongs-that-are-read", f"{FLOODED}[pings]",
        (WEBSOCKET, "if self.gate.open.is_set():", "if True:"),
    ),
    wall(
        "no-other-host", "test_wb.py::test_a_head_that_is_none_or_too_long_is_refused",
        (GUARD, "if not name or not _is_ours(name, hosts):", "if False:"),
    ),
    wall(
        "owners-token", "test_wb.py::test_whoever_cannot_show_the_token_ends_nothing",
        (ENGINE,
         "if not secrets.compare_digest((token or \"\").encode(), job.owner_token.encode()):",
         "if False:"),
    ),
]  # fmt: skip


# --- what stands when a wall is gone -------------------------------------------------------------


def test_honest_jobs_are_right(attacker: Attacker) -> None:
    """Before the attack on every mutation: code, files, an archive, two streams, an end."""
    job = {"run.sh": b"cat in | tee out; echo err >&2; exit 3", "in": b"text\n"}
    for start in (attacker.start, attacker.start_archive):
        seen = attacker.finish(start(job, interpreter="sh", entrypoint="run.sh"))
        assert (seen.reason, seen.code) == ("exit", 3), seen
        assert (seen.stdout, seen.stderr) == (b"text\n", b"err\n"), seen
        assert attacker.download(seen.id, "out") == b"text\n"


CONTROL = f"tests/attacks/{Path(__file__).name}::{test_honest_jobs_are_right.__name__}"


# --- the run -------------------------------------------------------------------------------------


def stale(walls: Iterable[Wall]) -> list[str]:
    """Edits that do not fit the code as it is now."""
    faults = []
    for name, _, edits in walls:
        for file, old, _ in edits:
            count = (REPOSITORY / file).read_text().count(old)
            if count != 1:
                faults.append(f"{name}: {count} times in {file}: {old.strip()!r}")
    return faults


def mutate(path: Path, edits: Iterable[Edit]) -> None:
    for file, old, new in edits:
        target = path / file
        text = target.read_text()
        assert text.count(old) == 1, (file, old)
        target.write_text(text.replace(old, new))


def outcomes(path: Path, tests: Iterable[str]) -> dict[str, str]:
    """What each test came to in the checkout at `path`: passed, failed, or error where it did not
    begin. What is looked at after it is not its own, and a neighbour on the machine can spoil it.
    A parametrised test failed when one of its cases did."""
    ids = [CONTROL, *(f"tests/attacks/{test}" for test in tests)]
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        argv = [f"{path}/.venv/bin/python", "-m", "pytest", "-q", "--no-sweep", *ids]
        argv += ["-p", "no:cacheprovider", f"--junitxml={report.name}"]
        run = subprocess.Popen(
            argv, cwd=path, start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            said, _ = run.communicate(timeout=SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as why:
            os.kill(run.pid, signal.SIGINT)  # so that it ends its server, too
            said, _ = run.communicate()
            if isinstance(why, KeyboardInterrupt):
                raise
        try:
            cases = list(ElementTree.parse(report.name).iter("testcase"))
        except ElementTree.ParseError:
            sys.exit(f"pytest did not begin:\n{said.decode(errors='replace')[-3000:]}")
    found: dict[str, str] = {}
    for case in cases:
        name = case.get("name", "").partition("[")[0]
        word = "failed" if case.find("failure") is not None else "passed"
        error = case.find("error")
        if error is not None and not error.get("message", "").startswith("failed on teardown"):
            word = "error"
        if case.find("skipped") is not None:
            word = "error"
        if found.get(name) != "failed" and (name not in found or word == "failed"):
            found[name] = word
    return found


def name_of(test: str) -> str:
    return test.rpartition("::")[2].partition("[")[0]


def judge(wall: Wall) -> tuple[bool, str]:
    """Whether its absence was noticed, and by whom."""
    with checkout() as path:
        mutate(path, wall.edits)
        found = outcomes(path, wall.tests)
    if found.get(name_of(CONTROL)) != "passed":
        word = found.get(name_of(CONTROL), "nothing")
        return False, f"NOT NOTICED: honest jobs do not run ({name_of(CONTROL)}: {word})"
    silent = [test for test in wall.tests if found.get(name_of(test)) != "failed"]
    if silent:
        word = found.get(name_of(silent[0]), "nothing")
        return False, f"NOT NOTICED by {silent[0]}: {word}"
    return True, f"noticed by {' '.join(wall.tests)}"


def main(names: list[str]) -> int:
    known = {wall.name: wall for wall in WALLS}
    if unknown := [name for name in names if name not in known]:
        print(f"no such wall: {', '.join(unknown)}; there are: {' '.join(known)}")
        return 2
    walls = [known[name] for name in names] or WALLS
    if faults := stale(walls):
        print("The table in tests/attacks/walls.py is stale:", *faults, sep="\n  ")
        return 1
    tests = sorted({test for wall in walls for test in wall.tests})
    with checkout() as path:
        found = outcomes(path, tests)
    broken = [test for test in tests if found.get(name_of(test)) != "passed"]
    if broken or found.get(name_of(CONTROL)) != "passed":
        print("Nothing was taken out, and yet these do not pass:", CONTROL, *broken, sep="\n  ")
        return 1
    # Or whoever is started from a background job would not heed it (outcomes).
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began, count = time.monotonic(), 0
    for wall in walls:
        noticed, about = judge(wall)
        count += noticed
        print(f"{wall.name:<32}  {about}", flush=True)
    minutes = (time.monotonic() - began) / 60
    print(f"{len(walls)} walls: {count} noticed, {len(walls) - count} not; {minutes:.1f} minutes")
    return 0 if count == len(walls) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
