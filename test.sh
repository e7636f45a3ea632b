#!/usr/bin/env bash
# Builds Tessera and runs its tests; installs what is missing first (apt-get).
#
#   ./test.sh             the core: release build, every C++ test
#   ./test.sh --clients   official clients and checkers against the built binaries: openai, gRPC and
#                         its health stubs, kubectl, kubernetes-validate, hadolint, promtool,
#                         Prometheus. They are installed into build/clients.
#   ./test.sh --lint      clang-format, clang's thread-safety analysis, and clang-tidy on what changed
#   ./test.sh --packages  both commands in a minimal Debian 12 made by debootstrap (root; slow)
#   ./test.sh --all       core, clients, lint, packages, the address, undefined-behaviour and thread
#                         sanitizers, and each fuzz target for 30 seconds
#   ./test.sh -- ARGS     passes ARGS to ctest, as in ./test.sh -- -R Scheduler
#
# Tiers add up: --core --clients runs both. --strict fails if a test was skipped that could have
# run (tests/clients/allowed_skips.txt); CI sets it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=cmake/prepare.sh
source cmake/prepare.sh

core=false clients=false lint=false packages=false deep=false strict=false
ctest_arguments=()
while (($# > 0)); do
  case $1 in
    --core) core=true ;;
    --clients) clients=true ;;
    --lint) lint=true ;;
    --packages) packages=true ;;
    --all) core=true clients=true lint=true packages=true deep=true ;;
    --strict) strict=true ;;
    --) shift && ctest_arguments=("$@") && break ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" && exit 0 ;;
    *) fail "Unknown argument $1; see ./test.sh --help" ;;
  esac
  shift
done
if ! $core && ! $clients && ! $lint && ! $packages; then core=true; fi

# Failures are told at the end, so that one tier does not keep the others from running.
failed=()

# run_tests NAME PRESET [CTEST ARGUMENT...]: ctest over build/PRESET, under $runner if it is set.
runner=()
run_tests() {
  local name=$1 preset=$2 log=build/$2/tests.log
  shift 2
  heading "Testing: $name"
  "${runner[@]}" ctest --test-dir "build/$preset" --output-on-failure --no-tests=error \
    -j "$(nproc)" "$@" "${ctest_arguments[@]}" 2>&1 |
    grep -v --line-buffered '^ *Start *[0-9]*:\|^\t[0-9]* - .*(Skipped)$' | tee "$log" ||
    failed+=("$name")
  # "12/34 Test #5: Name ....   Passed    1.23 sec"
  awk '/Test +#[0-9]+:.* sec *$/ && $(NF - 1) >= 1 {
         sub(/.*Test +#[0-9]+: /, ""); print $(NF - 1), $1 }' "$log" | sort -rn | head -n 10 |
    awk 'NR == 1 {print "Slowest tests, seconds:"} {printf "%8.2f  %s\n", $1, $2}'
  local strict_flag=()
  if $strict; then strict_flag=(--strict); fi
  python3 tests/clients/skips.py "${strict_flag[@]}" "build/$preset" || failed+=("$name: skips")
}

# fuzz TARGET: 30 seconds from the seeds in tests/fuzz/corpus; new inputs stay in build/fuzz.
fuzz() {
  local target=$1 name corpus log seeds=()
  name=$(basename "$target")
  corpus=build/fuzz/corpus/${name#fuzz_}
  log=build/fuzz/$name.log
  mkdir -p "$corpus"
  if [[ -d tests/fuzz/corpus/${name#fuzz_} ]]; then seeds=("tests/fuzz/corpus/${name#fuzz_}"); fi
  if ! "$target" -max_total_time=30 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="build/fuzz/$name-" "$corpus" "${seeds[@]}" >"$log" 2>&1; then
    tail -n 60 "$log"
    fail "$name found a fault; the input is named above"
  fi
  awk -v name="$name" '/stat::number_of_executed_units/ {print name ": " $2 " inputs, no fault"}' \
    "$log"
}

sanitizers_and_fuzzing() {
  export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1
  export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
  export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
  build_preset asan
  run_tests "address and undefined-behaviour sanitizers" asan -LE clients
  build_preset tsan
  # Kernels that randomise addresses by more bits than the runtime expects stop it at start.
  if setarch -R true 2>/dev/null; then runner=(setarch -R); fi
  run_tests "thread sanitizer" tsan -LE clients
  runner=()
  build_preset fuzz
  heading "Fuzzing, 30 seconds a target"
  local targets=(build/fuzz/bin/fuzz_*) target
  if [[ ! -x ${targets[0]} ]]; then fail "The fuzz preset built no target"; fi
  for target in "${targets[@]}"; do fuzz "$target"; done
}

needed=("${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}")
if $clients; then needed+=("${CLIENT_PACKAGES[@]}"); fi
if $lint; then needed+=("${LINT_PACKAGES[@]}"); fi
if $packages; then needed+=(debootstrap); fi
if $deep; then needed+=("${FUZZ_PACKAGES[@]}"); fi
install_packages "${needed[@]}"

preset=$(test_preset)
if $core || $clients; then build_preset "$preset"; fi
if $core; then run_tests core "$preset" -LE clients; fi
if $clients; then
  heading "Installing clients and checkers"
  PATH=$(tests/clients/install.sh):$PATH run_tests clients "$preset" -L clients
fi
if $lint; then
  heading "Linting"
  tests/lint/lint.sh --budget 900 || failed+=(lint)
fi
if $deep; then sanitizers_and_fuzzing; fi
if $packages; then
  heading "A minimal Debian 12"
  tests/packages/clean_machine.sh || failed+=(packages)
fi

if ((${#failed[@]} > 0)); then
  fail "Failed: $(printf '%s; ' "${failed[@]}")"
fi
printf '\n%sAll passed%s in %d s\n' "$green" "$plain" "$SECONDS"
