#!/usr/bin/env bash
# build.sh: build an image, with docker if its engine answers, otherwise with buildah.
#
#   TARGET          stage: service, training or torchserve (default: service)
#   ENGINE          docker or buildah (default: what is there)
#   IMAGE           name of the image (default: neurofv:latest, neurofv-training:latest, neurofv-torchserve:latest)
#   BASE            base image (default: debian:bookworm-slim)
#   TORCH_INDEX     index of torch's CPU builds (default: the Dockerfile's, or none if pip's settings
#                   name a folder that holds a wheel of torch)
#   PIP_EXTRA_ARGS  more options for pip
#   PYTHON          whose pip settings the build shall use (default: python3)
#
# pip inside the build follows the settings of pip on this machine: indexes, certificate, proxy,
# folders of wheels; and npm, which fetches the viewer, those of npm, if it is installed here: registry,
# credentials, authorities, proxy. They never become part of the image.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source-path=SCRIPTDIR source=engine.sh
. deploy/image/engine.sh

PYTHON=${PYTHON:-python3}
BASE=${BASE:-debian:bookworm-slim}

choose_engine
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
pip_conf=$scratch/pip.conf
mounts=()         # folders and files of this machine that pip reads: --volume=HERE:THERE:ro
torch_is_local='' # whether one of these folders holds torch

# The value of a pip option in effect: the environment wins, then [install], then [global].
pip_option() {
    local section line
    for section in :env: install global; do
        line=$(grep -m 1 -F "$section.$1=" "$scratch/pip.list") || continue
        line=${line#*=} # a Python literal: '...' with \n between the values
        printf '%b\n' "${line:1:-1}" | xargs
        return
    done
}

# Sets `inside` to the name that a path of this machine has inside the build.
mount_for_pip() {
    local here
    here=$(realpath "$1") || fail "pip's settings name $1, which does not exist"
    [ "$ENGINE" = buildah ] ||
        fail "pip's settings name the local path $1, which docker cannot mount into a build; set ENGINE=buildah"
    inside=/run/pip/${#mounts[@]}
    mounts+=("--volume=$here:$inside:ro")
}

# Writes one option with every local path replaced by its place inside the build.
write_pip_option() {
    local option=$1 value path inside out=''
    for value in $(pip_option "$option"); do
        case $value in
            file://*/simple | file://*/simple/)
                # The pages of an index point beside it (../../files), so its parent comes along.
                path=${value#file://} && path=${path%/}
                mount_for_pip "${path%/*}"
                value=file://$inside/simple
                ;;
            /* | file://*)
                path=${value#file://}
                mount_for_pip "$path"
                if compgen -G "$path/torch-*.whl" > /dev/null; then torch_is_local=yes; fi
                value=$inside
                ;;
        esac
        out+=" $value"
    done
    [ -z "$out" ] || printf '%s =%s\n' "$option" "$out" >> "$pip_conf"
}

write_pip_conf() {
    local option
    (umask 077 && echo '[global]' > "$pip_conf") # an index's address may hold a password
    "$PYTHON" -m pip config list > "$scratch/pip.list" 2> /dev/null || return 0
    for option in index-url extra-index-url find-links cert trusted-host proxy default-timeout; do
        write_pip_option "$option"
    done
}

# Writes what npm needs inside: npmrc, and whom it trusts.
write_npm_conf() {
    local option value
    (umask 077 && : > "$scratch/npmrc" && : > "$scratch/npm-ca.pem")
    command -v npm > /dev/null || return 0
    for option in registry proxy https-proxy noproxy strict-ssl; do
        value=$(npm config get "$option")
        case $value in '' | null | undefined) ;; *) printf '%s=%s\n' "$option" "$value" >> "$scratch/npmrc" ;; esac
    done
    # Credentials are told of a registry's address, after two slashes.
    grep -s '^//' "$(npm config get userconfig)" >> "$scratch/npmrc" || true
    value=$(npm config get cafile)
    if [ -f "$value" ]; then cat "$value" > "$scratch/npm-ca.pem"; fi
}

prepare_base() {
    if [ "$ENGINE" = docker ] || [ "$BASE" != debian:bookworm-slim ]; then return; fi
    local base=docker.io/library/debian:bookworm-slim
    if buildah inspect --type image "$base" > /dev/null 2>&1; then return; fi
    buildah pull --quiet "$base" && return
    echo "build.sh: no image registry can be reached; the base comes from this machine's Debian mirror"
    command -v debootstrap > /dev/null || fail "debootstrap is missing; apt-get install debootstrap"
    deploy/image/base.sh "$base"
}

build() {
    local arguments=(
        --build-arg "BASE=$BASE"
        --build-arg "PIP_EXTRA_ARGS=${PIP_EXTRA_ARGS:-}"
        --build-arg "VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)"
        --build-arg "REVISION=$(git rev-parse HEAD 2> /dev/null || echo unknown)"
        --build-arg "CREATED=$(date -u +%Y-%m-%dT%H:%M:%SZ)"
        --secret "id=pip,src=$pip_conf"
        --secret "id=npm,src=$scratch/npmrc"
        --secret "id=npm-ca,src=$scratch/npm-ca.pem"
        --target "$TARGET" --tag "$IMAGE" --file Dockerfile
    )
    if [ -n "${TORCH_INDEX+set}" ] || [ -n "$torch_is_local" ]; then
        arguments+=(--build-arg "TORCH_INDEX=${TORCH_INDEX:-}")
    fi
    if [ "$ENGINE" = docker ]; then
        docker build "${arguments[@]}" .
    else
        # Docker's format: OCI's has no health check. Layers are kept, as docker does: stages share them.
        buildah build --layers --format docker "${mounts[@]}" "${arguments[@]}" .
    fi
}

for file in constraints.txt README.md LICENSE; do
    [ -f "$file" ] || fail "$file is missing at the root of the project"
done
write_pip_conf
write_npm_conf
prepare_base
build
echo "$IMAGE: $(image_size)"
