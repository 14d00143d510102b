# Start a service for a demo and wait for it; read by demo.sh and audit-demo.sh.
# Takes $bin and $output, gives $port; the service ends with the script.
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
