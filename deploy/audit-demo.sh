#!/bin/sh
# Start the service, audit two models of the zoo, stop the service.
# Usage: audit-demo.sh VENV OUTPUT [COHORT]
# Run again it goes on where it was; a threshold that fails is a finding, and no failure of the demo.
set -eu
bin="$1/bin"
output="$2"
cohort="${3:-}"
plans="$(dirname "$0")/audit"
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

# With a cohort at hand, real images: exemplars, and whether activations take the path of theirs.
# Decided once: with images that come later it would be another audit, which the folder does not take.
if [ -d "$cohort" ] && [ ! -d "$output/images" ] && [ ! -e "$output/lesion-shapes/run.json" ]; then
    "$bin/python" "$plans/images.py" "$cohort" "$output/.images" && mv "$output/.images" "$output/images"
fi

for model in lesion-shapes lesion-shapes-robust; do
    plan="$output/$model.yaml"
    cp "$plans/$model.yaml" "$plan"
    if [ -d "$output/images" ]; then
        sed -i 's/^controls: .*/controls: {random_weights: true, real_images: true}/' "$plan"
        echo 'images: images' >>"$plan"
    fi
    printf '\n%s\n' "$model"
    "$bin/neurofv" audit run "$plan" --server "127.0.0.1:$port" --out "$output/$model" || [ $? -eq 1 ]
done
