#!/bin/sh
# Runs TorchServe in the foreground until it ends or is told to: its own launcher passes no signal on.
set -u
pid_file=${TMPDIR:-/tmp}/.model_server.pid
# Of a container that was killed: its number may be anybody's by now.
rm -f "$pid_file"
torchserve --start --foreground --ncs --model-store /models \
    --ts-config /opt/neurofv/share/torchserve/config.properties "$@" &
launcher=$!
trap 'kill -TERM "$(cat "$pid_file")"; stopped=yes' TERM INT
stopped=''
code=0
# A signal ends `wait` before the launcher ends.
while kill -0 "$launcher" 2> /dev/null; do
    wait "$launcher"
    code=$?
done
[ -z "$stopped" ] || code=0
exit "$code"
