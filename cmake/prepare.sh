# Packages, presets and small helpers of ./demo.sh and ./test.sh. Sourced by bash, at the
# repository's root, with `set -euo pipefail` on. The names hold for Debian 12 and Ubuntu 24.04.
# shellcheck shell=bash disable=SC2034  # Used where this is sourced.

BUILD_PACKAGES=(
  g++ cmake ninja-build ccache pkg-config
  libabsl-dev libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc
  libc-ares-dev libre2-dev libssl-dev zlib1g-dev
  libboost-dev libspdlog-dev libfmt-dev prometheus-cpp-dev libcurl4-openssl-dev nlohmann-json3-dev
  libjpeg-dev libpng-dev libwebp-dev
)
TEST_PACKAGES=(libgtest-dev libgmock-dev python3 curl openssl)
# tests/clients/install.sh brings the rest. systemd: for systemd-analyze.
CLIENT_PACKAGES=(python3 python3-venv doxygen openssl systemd dpkg apt)
LINT_PACKAGES=(git clang clang-format clang-tidy)
FUZZ_PACKAGES=(clang libclang-rt-dev)

if [[ -t 1 ]]; then
  bold=$'\e[1m' red=$'\e[31m' green=$'\e[32m' dim=$'\e[2m' plain=$'\e[0m'
else
  bold='' red='' green='' dim='' plain=''
fi

heading() { printf '\n%s== %s%s  %s(%d s)%s\n' "$bold" "$*" "$plain" "$dim" "$SECONDS" "$plain"; }
fail() {
  printf '%s%s%s\n' "$red" "$*" "$plain" >&2
  exit 1
}

# install_packages NAME...: what is missing, by apt-get. Elsewhere than on Debian and Ubuntu it
# names the packages and goes on: they may be there under other names.
install_packages() {
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "Not a Debian or Ubuntu: these packages, or what they are called here, must be there:"
    printf '  %s\n' "$*"
    return
  fi
  local package missing=()
  for package in "$@"; do
    if [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) != installed ]]; then
      missing+=("$package")
    fi
  done
  if ((${#missing[@]} == 0)); then return; fi

  heading "Installing ${#missing[@]} packages"
  printf '%s\n' "${missing[*]}"
  local as_root=()
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null; then
      fail "Neither root nor sudo is at hand. As root, run:" \
        "apt-get update && apt-get install ${missing[*]}"
    fi
    as_root=(sudo)
  fi
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq
    -o Acquire::Retries=3 -o Dpkg::Use-Pty=0)
  "${apt[@]}" update || fail "apt-get update failed: is the network there?"
  "${apt[@]}" install -y --no-install-recommends "${missing[@]}" ||
    fail "apt-get could not install: ${missing[*]}"
}

# One compiler job a core, but no more than the memory bears: files that include gRPC take 1 GB.
build_jobs() {
  local cores memory_gb
  cores=$(nproc)
  memory_gb=$(awk '/^MemAvailable:/ {print int($2 / 1048576)}' /proc/meminfo)
  local jobs=$((memory_gb < cores ? memory_gb : cores))
  echo $((jobs < 1 ? 1 : jobs))
}

# Says whether an NVIDIA GPU can be used here.
has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; }

# The preset that a newcomer's machine can run: CUDA code, for the card at hand, only where there is
# a GPU and a compiler for it. CUDA kernels take most of a build's time.
demo_preset() {
  if has_gpu && command -v nvcc >/dev/null; then echo native; else echo cpu; fi
}

# The preset of the tests: CUDA code must compile wherever nvcc is, for one architecture.
test_preset() {
  if has_gpu && command -v nvcc >/dev/null; then echo native; else echo test; fi
}

# build_preset PRESET [TARGET...]: configures and builds into build/PRESET.
build_preset() {
  local preset=$1 jobs
  shift
  jobs=$(build_jobs)
  heading "Building preset $preset with $jobs jobs"
  cmake --preset "$preset"
  local targets=()
  if (($# > 0)); then targets=(--target "$@"); fi
  NINJA_STATUS='[%f/%t %es] ' cmake --build --preset "$preset" -j "$jobs" "${targets[@]}"
}
