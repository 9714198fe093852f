#!/bin/sh
# Runs ENTRYPOINT of FOLDER on a Sandrun server, prints what it prints as it does, and ends with its
# exit code (1 when it was ended, 125 when it could not be run). Needs curl and tar:
#   SANDRUN_SERVER=http://localhost:8443 ci_step.sh FOLDER ENTRYPOINT [INTERPRETER]
set -eu

fail() { echo "::error::Sandrun: $1"; exit 125; }

[ $# -ge 2 ] || fail "which folder, and which file in it?"
server=${SANDRUN_SERVER:-http://localhost:8443}
server=${server%/}
folder=$1 entrypoint=$2 interpreter=${3:-python3}
work=$(mktemp -d)
job='' token=''

end() { # what is still running is of no use to anybody
    [ -z "$job" ] ||
        curl -sS -o "$work/cancelled" -X POST -H "Authorization: Bearer $token" "$server/jobs/$job/cancel" || true
    rm -rf "$work"
}
trap end EXIT
trap 'exit 125' HUP INT TERM

value() { # of a key in $answer
    printf '%s' "$answer" | tr ',{}' '[\n*]' | sed -n "s/^ *\"$1\": *\"\{0,1\}\([^\"]*\)\"\{0,1\} *\$/\1/p" | head -n 1
}

# Where temporary files are kept in the folder, the archive is not to hold itself.
tar -czf "$work/project.tar.gz" -C "$folder" --exclude=./.git --exclude="${work##*/}" . ||
    fail "$folder could not be packed."
# The key makes the same job of a request that is sent again; 429 and 503 are waited for.
answer=$(curl -sS --fail-with-body --retry 20 --retry-connrefused --retry-max-time 600 \
    -H "Idempotency-Key: $(cat /proc/sys/kernel/random/uuid)" \
    -F "files=@$work/project.tar.gz" \
    -F "manifest={\"entrypoint\":\"$entrypoint\",\"interpreter\":\"$interpreter\",\"outputs\":[\"none\"]}" \
    "$server/submit") || fail "it was not taken. ${answer:-}"
job=$(value job_id) token=$(value owner_token)
[ -n "$job" ] || fail "this is no Sandrun server: $server"

curl -sSN "$server/logs/$job?follow=1" || true # if that breaks off, what follows waits
while :; do
    answer=$(curl -sS --fail-with-body --retry 5 "$server/status/$job?wait=30") || fail "the job is lost. ${answer:-}"
    case $(value status) in completed | failed) break ;; esac
done
job=''
reason=$(value reason) code=$(value exit_code)
case $reason in
    null) exit 0 ;;
    exit) echo "::error::Sandrun: exit code $code"; exit "$code" ;;
    sandbox_error | worker_lost | cpu_quota | cancelled) fail "it was ended: $reason" ;;
    *) echo "::error::Sandrun: ended, $reason"; exit 1 ;;
esac
