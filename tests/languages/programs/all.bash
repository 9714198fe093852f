# bash and what a Debian has for it.
set -euo pipefail
exec 2>&1
seq 100 | sort -rn | head -n 3 | paste -sd, || true
diff <(echo same) <(echo same) && echo no difference
mkfifo pipe; echo through >pipe & cat pipe; wait
coproc double { read -r n; echo $((n * 2)); }
echo 21 >&"${double[1]}"; read -r answer <&"${double[0]}"; echo "$answer"
mkdir -p a/b 'with space'; printf 'x y\nz\n' >a/b/f; ln -s b a/link; ln a/b/f a/hard; touch 'with space/f'
tar czf x.tgz a && mkdir out && tar xzf x.tgz -C out && readlink out/a/link && diff -r a out/a
find . -name f -type f -print0 | sort -z | xargs -0 -n 1 -P 2 basename | sort | uniq -c | sed 's/^ *//'
awk '{ n += NF; sub(/z/, "Z"); print } END { print n }' a/b/f
sed -i 's/x/X/; $a end' a/b/f; cat a/b/f | tr '\n' '|'; echo
cp -a a copy; mv copy moved; rm -r moved; chmod 600 pipe; stat -c %a pipe; rm pipe
sort --parallel=2 -S 1M -u <(seq 5000) <(seq 5000) | wc -l
split -n 3 x.tgz part; cat part?? | cmp - x.tgz && sha256sum x.tgz part?? | wc -l
dd if=/dev/zero of=zeros bs=64k count=4 conv=fsync status=none; truncate -s 99M sparse; du -k --apparent-size zeros | cut -f1
trap 'echo caught' USR1; kill -USR1 $$; (exit 3) || echo "status $?"
timeout 0.1 sleep 9 || echo "timed out $?"; nice -n 5 nice
flock lock -c 'flock -n lock true || echo locked'; df --output=target . | tail -n 1
tail -f -n +1 --pid=$$ a/b/f & sleep 0.1; echo more >>a/b/f; sleep 0.3; kill %%; wait || true
declare -A map=([k]=v); printf '%s %(%Y)T\n' "${map[k]}" 0; read -rt 0.05 <> <(:) || echo "read $?"
