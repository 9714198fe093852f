set -eu
cd project
make -s -j2
./threads
./words
