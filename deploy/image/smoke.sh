#!/usr/bin/env bash
# smoke.sh: run an image. From the server a client on this machine streams a visualization, the trainer trains
# a network of six steps and exports an archive, TorchServe predicts with one.
#
#   ENGINE, IMAGE, TARGET  as in build.sh
#   PYTHON          a Python 3.11 that has the neurofv client (default: .venv/bin/python, else python3);
#                   for torchserve also the extra `torchserve`, for the archive
#
# docker runs them with a read-only file system, no capabilities and no new privileges. buildah cannot; there
# the few places that the image's user could write to are covered by an empty read-only folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source-path=SCRIPTDIR source=engine.sh
. deploy/image/engine.sh

if [ -z "${PYTHON:-}" ]; then
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi
"$PYTHON" -c 'from neurofv import Client' || fail "$PYTHON has no neurofv client; set PYTHON to one that has"

UID_INSIDE=10001
START_SECONDS=120
STOP_SECONDS=10
container=''
ports=(50051 8002)
scratch=$(mktemp -d)
chmod 711 "$scratch"
# What the container keeps; docker and buildah alike take this folder for the image's volume.
mkdir "$scratch/data"
chown "$UID_INSIDE:$UID_INSIDE" "$scratch/data" 2> /dev/null || chmod 777 "$scratch/data"
mounts=("--volume=$scratch/data:/data:rw")

start_docker() {
    # Inside, the server listens on every address; outside, its ports are published on loopback only. So
    # plaintext is accepted here, and only here: the image itself insists on a certificate.
    container=$(docker run --detach --read-only --cap-drop ALL --security-opt no-new-privileges \
        --env NEUROFV_INSECURE=true "${mounts[@]}" "${ports[@]/#/--publish=127.0.0.1::}" "$IMAGE")
    server=$(docker port "$container" "${ports[0]}/tcp")
    operator=$(docker port "$container" "${ports[1]}/tcp")
    pid=$(docker inspect --format '{{.State.Pid}}' "$container")
}

start_buildah() {
    local first second
    prepare_buildah
    # The container shares this machine's network: take two ports that are free, also on loopback only.
    first=$(free_port)
    second=$(free_port)
    server=127.0.0.1:$first
    operator=127.0.0.1:$second
    if [ "$TARGET" = service ]; then
        buildah config --env NEUROFV_HOST=127.0.0.1 --env "NEUROFV_PORT=$first" \
            --env NEUROFV_HTTP_HOST=127.0.0.1 --env "NEUROFV_HTTP_PORT=$second" "$container"
    else
        buildah config --env "TS_INFERENCE_ADDRESS=http://$server" --env "TS_METRICS_ADDRESS=http://$operator" \
            --env TS_GRPC_INFERENCE_ADDRESS=127.0.0.1 --env "TS_GRPC_INFERENCE_PORT=$(free_port)" \
            --env "TS_MANAGEMENT_ADDRESS=http://127.0.0.1:$(free_port)" \
            --env "TS_GRPC_MANAGEMENT_PORT=$(free_port)" "$container"
    fi
    configured entrypoint
    inside "${words[@]}" > "$scratch/log" 2>&1 &
    runner=$!
}

# Sets `container`, and covers what its user could write to.
prepare_buildah() {
    local place
    container=$(buildah from --pull-never "$IMAGE")
    mkdir "$scratch/empty"
    for place in /tmp /var/tmp /run/lock /var/lib/neurofv; do
        mounts+=("--volume=$scratch/empty:$place:ro")
    done
}

# Runs the image's own command with other arguments, to its end.
once() {
    if [ "$ENGINE" = docker ]; then
        docker run --rm --read-only --cap-drop ALL --security-opt no-new-privileges "${mounts[@]}" "$IMAGE" "$@"
    else
        configured entrypoint
        inside "${words[@]}" "$@"
    fi
}

inside() {
    if [ "$ENGINE" = docker ]; then
        docker exec "$container" "$@"
    else
        # exec: in the background this function's own process is then buildah.
        (exec buildah run "${mounts[@]}" "$container" -- "$@")
    fi
}

free_port() {
    "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Sets `words` to the image's own entrypoint or health check, one word an element.
configured() {
    local inspect=(docker image inspect)
    [ "$ENGINE" = docker ] || inspect=(buildah inspect --type image)
    mapfile -t words < <("${inspect[@]}" "$IMAGE" | "$PYTHON" -c '
import json, sys
image = json.load(sys.stdin)
config = image[0]["Config"] if isinstance(image, list) else image["Docker"]["config"]
print(*(config["Entrypoint"] if sys.argv[1] == "entrypoint" else config["Healthcheck"]["Test"][1:]), sep="\n")
' "$1")
}

health() {
    if [ "$TARGET" = torchserve ]; then
        "$PYTHON" deploy/image/predict.py ping "http://$server" "$scratch/data/key_file.json"
        return
    fi
    configured health
    inside "${words[@]}"
}

running() {
    if [ "$ENGINE" = docker ]; then
        [ "$(docker inspect --format '{{.State.Running}}' "$container")" = true ]
    else
        kill -0 "$runner" 2> /dev/null
    fi
}

# The processes below buildah's own, parents first.
descendants() {
    local queue=("$runner") children
    while [ ${#queue[@]} -gt 0 ]; do
        # Each thread has children of its own.
        mapfile -t children < <(cat "/proc/${queue[0]}/task"/*/children 2> /dev/null | tr " " "\n")
        queue=("${queue[@]:1}" "${children[@]}")
        [ ${#children[@]} = 0 ] || printf '%s\n' "${children[@]}"
    done
}

# Sets `pid` to the server: the first of them that is not a helper of buildah.
find_server() {
    for pid in $(descendants); do
        case $(readlink "/proc/$pid/exe") in
            */buildah | /memfd:buildah*) ;;
            *) return ;;
        esac
    done
    fail "no server runs below buildah's process $runner: $(show_log)"
}

show_log() {
    if [ "$ENGINE" = docker ]; then docker logs "$container" 2>&1; else cat "$scratch/log"; fi
}

wait_until_ready() {
    local end=$((SECONDS + START_SECONDS))
    until health > "$scratch/health" 2>&1; do
        running || fail "the container has ended: $(show_log)"
        [ $SECONDS -lt $end ] || fail "not ready after $START_SECONDS s: $(cat "$scratch/health"; show_log)"
        sleep 1
    done
    echo "health check: $(cat "$scratch/health")"
}

check_user() {
    if [ "$ENGINE" = buildah ]; then find_server; fi
    local uid
    uid=$(awk '$1 == "Uid:" { print $2 }' "/proc/$pid/status")
    [ "$uid" = "$UID_INSIDE" ] || fail "the server runs as uid $uid"
    echo "server: pid $pid, uid $uid, $(tr '\0' ' ' < "/proc/$pid/cmdline")"
}

# Sets `code` and `took`.
stop() {
    local start
    start=$(date +%s%N)
    code=0
    if [ "$ENGINE" = docker ]; then
        docker kill --signal TERM "$container" > /dev/null
        code=$(timeout 60 docker wait "$container")
    else
        kill -TERM "$pid"
        wait "$runner" || code=$?
    fi
    took=$((($(date +%s%N) - start) / 1000000))
    echo "SIGTERM: exit code $code after $took ms"
    if [ "$code" != 0 ] || [ "$took" -ge $((STOP_SECONDS * 1000)) ]; then
        fail "SIGTERM must end it with code 0 within $STOP_SECONDS s: $(show_log)"
    fi
}

check_read_only() {
    local writable
    # Its volume is what it may write to.
    writable=$(inside find / '(' -path /proc -o -path /sys -o -path /dev -o -path /data ')' -prune \
        -o ! -type l -writable -print -o -type d ! -readable -prune)
    [ -z "$writable" ] || fail "the server could write to: $writable"
    echo "file system: nothing but /data that uid $UID_INSIDE can write to"
}

cleanup() {
    if [ -n "$container" ]; then
        if [ "$ENGINE" = docker ]; then
            docker rm --force "$container" > /dev/null
        else
            # After a failure the server may still run; buildah does not end it with itself.
            if [ -n "${runner:-}" ]; then
                descendants | xargs --no-run-if-empty kill -KILL 2> /dev/null || true
                wait "$runner" 2> /dev/null || true
            fi
            buildah rm "$container" > /dev/null
        fi
    fi
    rm -rf "$scratch"
}

smoke_service() {
    "start_$ENGINE"
    wait_until_ready
    check_user
    check_read_only
    "$PYTHON" deploy/image/stream.py "$server"
    "$PYTHON" -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())' \
        "http://$operator/metrics" | grep -E '^(neurofv_jobs_finished_total|neurofv_volumes_sent_total)'
    "$PYTHON" -c 'import json, sys, urllib.request
assert json.load(urllib.request.urlopen(sys.argv[1]))["viewer"], "the page has no viewer"' \
        "http://$operator/ui/api/door"
    stop
}

smoke_training() {
    PYTHONPATH=. "$PYTHON" -c 'import sys; from pathlib import Path; from tests.brains import make_cohort
make_cohort(Path(sys.argv[1]))' "$(mkdir "$scratch/cohort" && echo "$scratch/cohort")"
    mounts+=("--volume=$scratch/cohort:/cohort:ro")
    [ "$ENGINE" = docker ] || prepare_buildah
    once --help | grep lesions
    once lesions --cohort /cohort --out trained --steps 6 --draws 1 | tail -n 3
    once export trained/lesion-shapes/1 --torchserve store
    [ "$(stat --format %u "$scratch/data/trained/lesion-shapes/1/bundle.json")" = "$UID_INSIDE" ] ||
        fail "the bundle does not belong to uid $UID_INSIDE"
    [ "$ENGINE" = docker ] || check_read_only
}

smoke_torchserve() {
    mkdir "$scratch/store"
    "$PYTHON" -m training export lesion-shapes --torchserve "$scratch/store"
    mounts+=("--volume=$scratch/store:/models:ro")
    ports=(8080 8082)
    "start_$ENGINE"
    wait_until_ready
    check_user
    check_read_only
    "$PYTHON" deploy/image/predict.py predict "http://$server" "$scratch/data/key_file.json" ||
        fail "it does not predict: $(show_log)"
    stop
}

choose_engine
trap cleanup EXIT
echo "image: $IMAGE, $(image_size), $ENGINE"
"smoke_$TARGET"
