#!/bin/sh
# What a Sandrun server can do, one curl line after the other:
#   SANDRUN_SERVER=http://localhost:8443 integrations/examples/curl_examples.sh
# Prints every line and its answer, and fails at the first answer that is not as it should be. Runs 6
# jobs, never two at once: the quotas of a server that was started without options are enough.
set -eu

server=${SANDRUN_SERVER:-http://localhost:8443}
server=${server%/}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cd "$work"

fail() { echo "curl_examples.sh: $1" >&2; exit 1; }

ask() { # run curl with these words; both are printed, the answer is kept in $answer
    printf '$ curl'
    for word in "$@"; do
        case $word in *[!A-Za-z0-9_./:=@?-]*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    echo
    answer=$(curl -sS --fail-with-body "$@") || fail "refused: $answer"
    [ -z "$answer" ] || printf '%s\n' "$answer"
}

expect() { # these words somewhere in the answer
    case $answer in *"$1"*) ;; *) fail "the answer has no $1" ;; esac
}

value() { # of a key in the answer: of the first one, if it is a string
    printf '%s' "$answer" | tr ',{}' '[\n*]' | sed -n "s/^ *\"$1\": *\"\(.*\)\" *\$/\1/p" | head -n 1
}

echo "== What this server is"
ask "$server/"
expect '"service":"sandrun"'

echo "== One file: its extension tells the language"
echo 'print(6 * 7)' > answer.py
ask -F files=@answer.py "$server/submit"
job=$(value job_id)
ask "$server/status/$job?wait=30"
expect '"status":"completed"'
expect '"stdout":"42\n"'

echo "== A project, with arguments and the files to keep"
mkdir -p project/results
cat > project/main.py <<'PYTHON'
import sys
print("got", *sys.argv[1:])
open("results/out.txt", "w").write(" ".join(sys.argv[1:]))
PYTHON
tar -czf project.tar.gz -C project .
ask -F files=@project.tar.gz \
    -F 'manifest={"entrypoint":"main.py","interpreter":"python3","args":["a","b"],"outputs":["results/"]}' \
    "$server/submit"
expect '"status":"queued"'
job=$(value job_id)

echo "== Wait for its end: the answer comes as soon as it is over, or after so many seconds"
ask "$server/status/$job?wait=30"

echo "== Its status, its logs, its outputs"
ask "$server/status/$job"
expect '"status":"completed"'
ask "$server/logs/$job"
expect '"stdout":"got a b\n"'
ask "$server/outputs/$job"
expect '"files":["results/out.txt"]'

echo "== One output, and all of them as an archive"
ask -o out.txt "$server/download/$job/results/out.txt"
[ "$(cat out.txt)" = "a b" ] || fail "out.txt holds something else"
ask -o all.tar.gz "$server/download/$job"
tar -tzf all.tar.gz
[ "$(tar -tzf all.tar.gz)" = results/out.txt ] || fail "the archive holds something else"

echo "== Run: code in, what it prints out"
# shellcheck disable=SC2016 # $1 is for the job's shell
ask --data-binary 'echo "hello from $1"' "$server/run?interpreter=bash&args=bash"
[ "$answer" = "hello from bash" ] || fail "it printed something else"

echo "== JSON instead of a form"
ask --json '{"files":{"main.py":"import words; print(words.GREETING)","words.py":"GREETING = \"hi\""}}' \
    "$server/submit?wait=30"
expect '"stdout":"hi\n"'

echo "== Cancel: only whoever has the owner_token may"
endless='{"files":{"main.py":"import time; time.sleep(30)"},"manifest":{"timeout":20}}'
ask --json "$endless" "$server/submit"
job=$(value job_id) token=$(value owner_token)
ask -X POST -H "Authorization: Bearer $token" "$server/jobs/$job/cancel"
expect '"reason":"cancelled"'

echo "== Delete: the job is ended and forgotten"
ask --json "$endless" "$server/submit"
job=$(value job_id) token=$(value owner_token)
ask -X DELETE -H "Authorization: Bearer $token" "$server/jobs/$job"
expect '"deleted":true'
code=$(curl -sS -o gone.json -w '%{http_code}' "$server/status/$job")
[ "$code" = 404 ] || fail "a deleted job is answered with $code"

echo "== What is left of my quota, and what can run here"
ask "$server/stats"
expect '"can_submit":true'
ask "$server/environments"
expect '"python3"'

echo "== All as it should be"
