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
. "$(dirname "$0")/demo-service.sh"

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
