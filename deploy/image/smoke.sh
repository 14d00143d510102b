#!/usr/bin/env bash
# smoke.sh: run the image and let a client on this machine stream a visualization from it.
#
#   ENGINE, IMAGE   as in build.sh
#   PYTHON          a Python 3.11 that has the neurofv client (default: .venv/bin/python, else python3)
#
# docker runs it with a read-only file system, no capabilities and no new privileges. buildah cannot; there
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
read_only=()
scratch=$(mktemp -d)

start_docker() {
    # Inside, the server listens on every address; outside, its ports are published on loopback only. So
    # plaintext is accepted here, and only here: the image itself insists on a certificate.
    container=$(docker run --detach --read-only --cap-drop ALL --security-opt no-new-privileges \
        --env NEUROFV_INSECURE=true --publish 127.0.0.1::50051 --publish 127.0.0.1::8002 "$IMAGE")
    server=$(docker port "$container" 50051/tcp)
    operator=$(docker port "$container" 8002/tcp)
    pid=$(docker inspect --format '{{.State.Pid}}' "$container")
}

start_buildah() {
    local ports place
    container=$(buildah from --pull-never "$IMAGE")
    mkdir "$scratch/empty"
    for place in /tmp /var/tmp /run/lock /var/lib/neurofv; do
        read_only+=(--volume "$scratch/empty:$place:ro")
    done
    # What the server keeps; docker gives the image's volume a place of its own.
    install -d -o "$UID_INSIDE" -g "$UID_INSIDE" -m 0700 "$scratch/data"
    read_only+=(--volume "$scratch/data:/data:rw")
    # The container shares this machine's network: take two ports that are free, also on loopback only.
    ports=$(free_port)
    buildah config --env NEUROFV_HOST=127.0.0.1 --env "NEUROFV_PORT=$ports" "$container"
    server=127.0.0.1:$ports
    ports=$(free_port)
    buildah config --env NEUROFV_HTTP_HOST=127.0.0.1 --env "NEUROFV_HTTP_PORT=$ports" "$container"
    operator=127.0.0.1:$ports
    configured entrypoint
    inside "${words[@]}" > "$scratch/log" 2>&1 &
    runner=$!
}

inside() {
    if [ "$ENGINE" = docker ]; then
        docker exec "$container" "$@"
    else
        # exec: in the background this function's own process is then buildah.
        (exec buildah run "${read_only[@]}" "$container" -- "$@")
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

choose_engine
trap cleanup EXIT
echo "image: $IMAGE, $(image_size), $ENGINE"
"start_$ENGINE"
wait_until_ready
check_user
check_read_only
"$PYTHON" deploy/image/stream.py "$server"
"$PYTHON" -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())' \
    "http://$operator/metrics" | grep -E '^(neurofv_jobs_finished_total|neurofv_volumes_sent_total)'
stop
