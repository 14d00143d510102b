#!/usr/bin/env bash
# base.sh IMAGE: make a bookworm base image with debootstrap where no image registry can be reached.
#
# Debian comes from the mirrors that this machine's own apt uses; the image keeps them as its sources.
# Needs root, buildah and debootstrap.
set -euo pipefail

image=$1

if [ "$(id -u)" != 0 ]; then
    echo "base.sh: debootstrap needs root; run this as root, or load $image into buildah's store yourself" >&2
    exit 1
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
root=$scratch/root

# "deb [signed-by=...] URI RELEASE COMPONENT" for every Debian index that apt reads here.
# shellcheck disable=SC2016  # apt itself fills in $(REPO_URI) and the rest
apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
    awk '$2 ~ /^bookworm/ && !seen[$0]++ {
        print "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] " $0
    }' > "$scratch/debian.list"
mirror=$(awk '$4 == "bookworm" && $5 == "main" { print $3; exit }' "$scratch/debian.list")
if [ -z "$mirror" ]; then
    echo "base.sh: this machine's apt knows no mirror of Debian bookworm; load $image into buildah's store yourself" >&2
    exit 1
fi

echo "base.sh: making $image with debootstrap"
debootstrap --variant=minbase --include=ca-certificates bookworm "$root" "$mirror" > "$scratch/log" || {
    tail -n 20 "$scratch/log" >&2
    exit 1
}
rm -f "$root/etc/apt/sources.list"
cp "$scratch/debian.list" "$root/etc/apt/sources.list.d/debian.list"
# How this machine's apt reaches the mirror: through a proxy, or one whose dates have passed.
apt-config dump --no-empty | grep -E '^Acquire::(Check-|https?::Proxy)' > "$root/etc/apt/apt.conf.d/90mirror" || true
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log \
    "$root"/usr/share/{doc,info,man,locale}/*

container=$(buildah from scratch)
buildah add --quiet "$container" "$root" / > "$scratch/log"
buildah config --cmd bash --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
buildah commit --quiet --rm "$container" "$image"
