#!/usr/bin/env bash
# Builds Tessera and runs its tests; installs what is missing first (apt-get).
#
#   ./test.sh          release build, all tests
#   ./test.sh --all    also the address, undefined-behaviour and thread sanitizers, and each fuzz
#                      target for 30 seconds
#   ./test.sh -- ARGS  passes ARGS to ctest, as in ./test.sh -- -R Scheduler
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=cmake/prepare.sh
source cmake/prepare.sh

all=false
ctest_arguments=()
while (($# > 0)); do
  case $1 in
    --all) all=true ;;
    --) shift && ctest_arguments=("$@") && break ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" && exit 0 ;;
    *) fail "Unknown argument $1; see ./test.sh --help" ;;
  esac
  shift
done

# run_tests PRESET [COMMAND...]: ctest over build/PRESET, under COMMAND if there is one. What fails is
# told at the end, so that one preset's failure does not keep the others from running.
failed=()
run_tests() {
  local preset=$1 log=build/$1/tests.log
  shift
  heading "Testing preset $preset"
  "$@" ctest --test-dir "build/$preset" --output-on-failure --no-tests=error -j "$(nproc)" \
    "${ctest_arguments[@]}" 2>&1 | grep -v --line-buffered '^ *Start *[0-9]*:' | tee "$log" ||
    failed+=("$preset")
  # "12/34 Test #5: Name ....   Passed    1.23 sec"
  awk '/Test +#[0-9]+:.* sec *$/ && $(NF - 1) >= 1 {
         sub(/.*Test +#[0-9]+: /, ""); print $(NF - 1), $1 }' "$log" | sort -rn | head -n 10 |
    awk 'NR == 1 {print "Slowest tests, seconds:"} {printf "%8.2f  %s\n", $1, $2}'
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

packages=("${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}")
if $all; then packages+=("${FUZZ_PACKAGES[@]}"); fi
install_packages "${packages[@]}"

build_preset release
run_tests release

if $all; then
  export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1
  export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
  export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
  build_preset asan
  run_tests asan
  build_preset tsan
  # Kernels that randomise addresses by more bits than the runtime expects stop it at start.
  fixed_addresses=()
  if setarch -R true 2>/dev/null; then fixed_addresses=(setarch -R); fi
  run_tests tsan "${fixed_addresses[@]}"
  build_preset fuzz
  heading "Fuzzing, 30 seconds a target"
  targets=(build/fuzz/bin/fuzz_*)
  if [[ ! -x ${targets[0]} ]]; then fail "The fuzz preset built no target"; fi
  for target in "${targets[@]}"; do fuzz "$target"; done
fi

if ((${#failed[@]} > 0)); then fail "Tests failed: ${failed[*]}"; fi
printf '\n%sAll passed%s in %d s\n' "$green" "$plain" "$SECONDS"
