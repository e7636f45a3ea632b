#!/usr/bin/env bash
# Proves the package lists: runs ./demo.sh and ./test.sh in a minimal system made by debootstrap,
# from a fresh clone of HEAD, with an empty ccache and nothing of this machine but its kernel.
#
#   tests/packages/clean_machine.sh [demo|core|clients]...   default: all three
#
# The system is of this machine's own release (Debian 12, Ubuntu 24.04). apt's sources, keys and
# proxies, and pip's settings in the environment, are this machine's. Needs root and debootstrap.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

steps=("$@")
if ((${#steps[@]} == 0)); then steps=(demo core clients); fi
if ((EUID != 0)); then
  echo "clean_machine.sh needs root: debootstrap and chroot do" >&2
  exit 1
fi

root=$(mktemp -d /var/tmp/tessera-clean.XXXXXX)
# shellcheck disable=SC2317  # Called by the trap.
cleanup() {
  local mount
  for mount in proc sys dev; do
    if mountpoint -q "$root/$mount"; then umount -lR "$root/$mount"; fi
  done
  if [[ ${KEEP:-} == 1 ]]; then
    echo "Left in $root"
  else
    rm -rf --one-file-system "$root"
  fi
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

# shellcheck source=/dev/null
source /etc/os-release
# shellcheck disable=SC2016  # apt-get expands it.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
say "debootstrap --variant=minbase $VERSION_CODENAME"
debootstrap --variant=minbase "$VERSION_CODENAME" "$root" "$mirror" >"$root.log" 2>&1 || {
  tail -n 20 "$root.log"
  exit 1
}
rm -f "$root.log"

# apt as here: sources, keys, proxies and certificates. No hooks of other packages.
cp -a /etc/apt/. "$root/etc/apt/"
rm -f "$root"/etc/apt/apt.conf.d/*docker* "$root"/etc/apt/apt.conf.d/*listchanges*
cp -aL /etc/resolv.conf /etc/hosts "$root/etc/" 2>/dev/null || true
if [[ -d /usr/share/keyrings ]]; then
  mkdir -p "$root/usr/share/keyrings"
  cp -an /usr/share/keyrings/. "$root/usr/share/keyrings/"
fi
mkdir -p "$root/etc/ssl/certs"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
[[ -f /etc/pip.conf ]] && cp /etc/pip.conf "$root/etc/"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount --rbind --make-rslave /dev "$root/dev"

git clone -q --no-hardlinks . "$root/src"

# The commands see the variables that the network needs, and nothing else of this environment.
environment=(HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 CI="${CI:-}")
while IFS= read -r line; do environment+=("$line"); done \
  < <(env | grep -E '^(PIP_|SSL_CERT|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|https?_proxy|no_proxy|HTTPS?_PROXY|NO_PROXY)' || true)
inside() { env -i "${environment[@]}" chroot "$root" /bin/bash -c "cd /src && $*"; }

failed=0
for step in "${steps[@]}"; do
  case $step in
    demo) command="./demo.sh" ;;
    core) command="./test.sh --core --strict" ;;
    clients) command="./test.sh --clients --strict" ;;
    *) echo "Unknown step $step" >&2 && exit 1 ;;
  esac
  say "$command"
  begin=$SECONDS
  if inside "$command"; then verdict=passed; else verdict=FAILED failed=1; fi
  printf '%s: %s %s in %d s\n' "clean machine ($PRETTY_NAME)" "$command" "$verdict" \
    $((SECONDS - begin))
done
exit "$failed"
