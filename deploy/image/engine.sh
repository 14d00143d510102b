# shellcheck shell=bash
# Which image is meant, and which tool builds and runs it; sourced by build.sh and smoke.sh.
#
# Sets ENGINE (docker or buildah), TARGET and IMAGE; values from the environment win.

TARGET=${TARGET:-service}
case $TARGET in
    service) IMAGE=${IMAGE:-neurofv:latest} ;;
    training | torchserve) IMAGE=${IMAGE:-neurofv-$TARGET:latest} ;;
    *)
        echo "${0##*/}: TARGET is '$TARGET'; it must be service, training or torchserve" >&2
        exit 1
        ;;
esac

choose_engine() {
    if [ -z "${ENGINE:-}" ]; then
        if docker version --format '{{.Server.Version}}' > /dev/null 2>&1; then ENGINE=docker; else ENGINE=buildah; fi
    fi
    case $ENGINE in
        docker) return ;;
        buildah) ;;
        *) fail "ENGINE is '$ENGINE'; it must be docker or buildah" ;;
    esac
    command -v buildah > /dev/null ||
        fail "no docker engine answers and buildah is missing; apt-get install buildah debootstrap"
    # Needs neither namespaces nor a runtime, which small machines and containers lack.
    export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}
}

# The image's size as the engine counts it: its layers, uncompressed.
image_size() {
    if [ "$ENGINE" = docker ]; then
        echo "$(($(docker image inspect --format '{{.Size}}' "$IMAGE") / 1000000)) MB"
    else
        buildah images --format '{{.Size}}' "$IMAGE"
    fi
}

fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}
