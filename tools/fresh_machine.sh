#!/usr/bin/env bash
# Runs `make sample` and `make test` where nothing else is: a Debian with python3, python3-dev, python3-venv, g++, make
# and git, a fresh clone of HEAD, an empty environment, a user without rights. Needs root, to mount and to chroot.
#   RELEASE=trixie         another Debian than bookworm
#   MIRROR=URL             where its packages come from; by default from where this machine's do
#   FRESH_TARGETS="lint"   other targets of the Makefile than `sample` and `test`
#   FRESH_BINDS="/a /b"    folders to be seen there too, read-only, such as those that pip.conf points to
# Settings of pip and of certificates are those of this machine: its pip.conf, PIP_*, *_proxy and SSL_CERT_*.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ $EUID -ne 0 ]]; then
  echo "make fresh-machine needs root, because it makes a system of its own with debootstrap and enters it by chroot" >&2
  exit 2
fi
# with mounts of its own, which end with this process however it ends
[[ ${1:-} == inside ]] || exec unshare --mount --propagation private "$0" inside

release=${RELEASE:-bookworm}
root=$PWD/build/fresh/$release
home=/home/tester
if [[ ! -e $root.ready ]]; then
  rm -rf "$root"
  mkdir -p "$root"
  mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | head -n 1)}
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-dev,python3-venv,g++,make,git \
    "$release" "$root" ${mirror:+"$mirror"} > "$root.log" || { tail -n 20 "$root.log" >&2; exit 1; }
  chroot "$root" useradd --create-home tester
  touch "$root.ready"
fi

for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/xdg/pip /etc/ssl/certs/ca-certificates.crt; do
  if [[ -e $file ]]; then
    mkdir -p "$root$(dirname "$file")"
    cp -rL --remove-destination "$file" "$root$(dirname "$file")/"
  fi
done
mount -t proc proc "$root/proc"
mkdir -p "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
for folder in ${FRESH_BINDS:-}; do
  mkdir -p "$root$folder"
  mount --bind "$folder" "$root$folder"
  mount -o remount,bind,ro "$root$folder"
done

rm -rf "$root$home/checkout"
git clone --quiet --no-hardlinks . "$root$home/checkout"
chroot "$root" chown -R tester: "$home"
mapfile -t settings < <(env | grep -E '^(PIP_[A-Z_]+|[a-zA-Z]+_proxy|[A-Z]+_PROXY|SSL_CERT_(FILE|DIR))=' || true)
git log -1 --format="$release, %h: %s"
failed=0
for target in ${FRESH_TARGETS:-sample test}; do
  started=$SECONDS
  result=passed
  chroot --userspec=tester:tester "$root" /usr/bin/env -i HOME=$home PATH=/usr/local/bin:/usr/bin:/bin "${settings[@]}" \
    make -C $home/checkout "$target" < /dev/null > "$root-$target.log" 2>&1 || { result=failed; failed=1; }
  tail -n 15 "$root-$target.log"
  echo "make $target: $result, $((SECONDS - started)) s, all of it in build/fresh/$release-$target.log"
done
exit $failed
