#!/usr/bin/env bash
# Checks the CUDA backend on a machine with a GPU and measures it; ends with a short summary.
#
#   tests/gpu_check.sh [--no-bench] [--no-sanitizer] [BIN_DIR]
#
# BIN_DIR holds tessera_tests and tessera_bench (default: build/release/bin). The binaries may have
# been built elsewhere; the repository around this script gives the test data. Needs the CUDA
# driver and libcublasLt. Logs go to $GPU_CHECK_LOGS (default: gpu_check.logs next to BIN_DIR).
set -uo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
repository=${TESSERA_SOURCE_DIR:-$repository}
bench=true sanitizer=true binaries=$repository/build/release/bin
while (($# > 0)); do
  case $1 in
    --no-bench) bench=false ;;
    --no-sanitizer) sanitizer=false ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" && exit 0 ;;
    -*) echo "Unknown argument $1; see --help" >&2 && exit 2 ;;
    *) binaries=$1 ;;
  esac
  shift
done
logs=${GPU_CHECK_LOGS:-$binaries/../gpu_check.logs}
mkdir -p "$logs"
export TESSERA_SOURCE_DIR=$repository
for directory in /usr/local/cuda/lib64 /usr/local/cuda-13*/lib64; do
  if [[ -d $directory ]]; then
    export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$directory
    export PATH=$PATH:${directory%/lib64}/bin
  fi
done
cd "$repository" || exit 1

summary=() failed=0
# check NAME LOG COMMAND...: runs it, keeps its output, notes how it ended.
check() {
  local name=$1 log=$logs/$2 start=$SECONDS
  shift 2
  if "$@" >"$log" 2>&1; then
    summary+=("ok      $name ($((SECONDS - start)) s)")
  else
    summary+=("FAILED  $name ($((SECONDS - start)) s): $log")
    failed=1
    grep -E 'Failure|FAILED|error|check failed|worst element|within' "$log" | head -n 30
  fi
}
# tests FILTER: of the suites that run over CUDA; a skipped test means no usable device.
tests() { "$binaries/tessera_tests" --gtest_brief=0 --gtest_filter="$1"; }
none_skipped() { ! grep -q '  SKIPPED ' "$1"; }

nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null
check "kernel suites" kernels.log tests 'Cuda/*:BackendTableTest.*'
check "every CUDA test ran" skipped.log none_skipped "$logs/kernels.log"
check "goldens" goldens.log tests '*GoldenTest*/cuda*'
grep -hE '^(tiny_gqa|demo) on' "$logs/goldens.log"
check "policies" policies.log tests 'Policies/DevicePolicyTest.*'
grep -h "answers equal the CPU's" "$logs/policies.log"
if $sanitizer; then
  own='Cuda/RowsTest.*/cuda:Cuda/AttentionTest.*/cuda:Cuda/MixedAttentionTest.*/cuda'
  own+=':Cuda/CalibQuant*/cuda:Cuda/MoveTokensTest.*/cuda:Cuda/TransformTest.*/cuda:Cuda/SampleTest.*/cuda:Cuda/StatisticsTest.*/cuda'
  products='Cuda/GraphTest.*:Cuda/LowPassTest.*/cuda:Cuda/MatMulTest.DTypes/cuda:Cuda/MatMulTest.Gl*/cuda:Cuda/MatMulTest.Prol*/cuda'
  if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck; do
      # initcheck misses cublasLt's writes by bulk copies of the tensor memory unit. racecheck finds
      # races in its kernels that split a long sum: the long prompt of LowPassTest.
      filter=$own
      if [[ $tool != initcheck ]]; then filter+=:$products; fi
      if [[ $tool == racecheck ]]; then filter+=:-Cuda/LowPassTest.NothingIsLeft*; fi
      check "$tool" "$tool.log" compute-sanitizer --tool "$tool" --error-exitcode 9 \
        "$binaries/tessera_tests" --gtest_filter="$filter"
    done
  else
    summary+=("skipped the sanitizers: compute-sanitizer is not there")
  fi
fi
if $bench; then
  check "bench gemm" bench_gemm.log "$binaries/tessera_bench" gemm --device=cuda
  check "bench attention" bench_attention.log "$binaries/tessera_bench" attention --device=cuda
  check "bench step" bench_step.log "$binaries/tessera_bench" step
  cat "$logs"/bench_*.log
fi
printf '%s\n' "${summary[@]}"
exit $failed
