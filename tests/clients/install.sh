#!/usr/bin/env bash
# Installs what the clients tier of test.sh runs: official clients and checkers from PyPI, pinned and
# hashed in requirements.txt, and Prometheus from the distribution. Everything lands in
# build/clients; nothing is installed on the machine and no service is started.
# Prints the folder to put first in PATH. Needs python3-venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

requirements=tests/clients/requirements.txt
# The distribution's Python, not another that comes first in PATH.
python=/usr/bin/python3
key=$({ "$python" --version && cat "$requirements"; } | sha256sum | cut -c1-16)
folder=build/clients/$key
bin=$PWD/$folder/bin
if [[ ! -e $folder/complete ]]; then
  rm -rf "$folder"
  mkdir -p build/clients
  "$python" -m venv "$folder" >&2
  "$bin/pip" install --quiet --disable-pip-version-check --require-hashes --no-deps \
    --only-binary=:all: -r "$requirements" >&2
  # Installed as a package, Prometheus would also start its service.
  (
    cd "$folder"
    apt-get -qq download prometheus >&2
    dpkg -x prometheus_*.deb prometheus
    rm prometheus_*.deb
    ln -s ../prometheus/usr/bin/prometheus ../prometheus/usr/bin/promtool bin/
  )
  touch "$folder/complete"
fi
echo "$bin"
