#!/bin/sh
# Start the service, let a client ask for every lesion class, stop the service.
# Usage: demo.sh VENV OUTPUT
set -eu
bin="$1/bin"
output="$2"
mkdir -p "$output"
. "$(dirname "$0")/demo-service.sh"

"$bin/neurofv" demo --server "127.0.0.1:$port" --output "$output"
