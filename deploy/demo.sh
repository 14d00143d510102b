#!/bin/sh
# Start the service, let a client ask for every lesion class, stop the service.
# Usage: demo.sh VENV OUTPUT
set -eu
bin="$1/bin"
output="$2"
mkdir -p "$output"
log="$output/server.log"

# Free ports, so that a service that runs already is left alone.
# And a folder of its own: another server's jobs are not the demo's.
NEUROFV_PORT=0 NEUROFV_HTTP_PORT=0 NEUROFV_LOG_FORMAT=json NEUROFV_DATA="$output/.jobs" "$bin/neurofv-server" 2>"$log" &
server=$!
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true' EXIT INT TERM

printf 'Starting the service '
port=''
while [ -z "$port" ]; do
    kill -0 "$server" 2>/dev/null || { printf '\nThe service did not start; %s says why.\n' "$log"; exit 1; }
    printf '.'
    sleep 0.5
    port=$(sed -n 's/.*"event": "serving".*/&/p' "$log" | sed -n 's/.*"port": \([0-9]*\).*/\1/p' | head -n 1)
done
printf ' ready on port %s\n' "$port"

"$bin/neurofv" demo --server "127.0.0.1:$port" --output "$output"
