#!/usr/bin/env bash
# Runs the linters: clang-format, clang-tidy and clang's thread-safety analysis.
#
#   tests/lint/lint.sh              clang-tidy on the files that differ from the base
#   tests/lint/lint.sh --base REF   the base is where this branch left REF
#   tests/lint/lint.sh --all        clang-tidy on every file (most of an hour on two cores)
#   tests/lint/lint.sh --budget N   clang-tidy starts no file after N seconds, and says how many it left
#
# Without --base the base is where this branch left main or origin/main. If it has not left them, as
# in a fresh clone, the base is the last commit's first parent. Uncommitted files count as changed.
# Without any earlier commit clang-tidy reads nothing, and says so.
# clang-format reads every file, and the thread-safety analysis every file that locks something:
# neither depends on the base.
#
# Exits with 1 if there is a finding. Installs nothing: needs clang, clang-format, clang-tidy and what
# the build needs (cmake/prepare.sh). The findings of LLVM 14 (Debian 12) are the ones that count.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

build=build/thread-safety
# Clang 14 does not compile all of the benchmarks: lambdas capture structured bindings there.
not_ours='^tests/bench/'
locks='TESSERA_(GUARDED_BY|REQUIRES)|\b(Mutex|MutexLock|CondVar)\b'

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; }
fail() {
  echo "lint.sh: $*" >&2
  exit 2
}

all=false base='' budget=86400
while (($# > 0)); do
  case $1 in
    --all) all=true ;;
    --base) base=${2:?--base needs a commit} && shift ;;
    --budget) budget=${2:?--budget needs seconds} && shift ;;
    -h | --help) usage && exit 0 ;;
    *) fail "unknown argument $1; see --help" ;;
  esac
  shift
done
for tool in git cmake clang++ clang-format clang-tidy; do
  command -v "$tool" >/dev/null || fail "$tool is not installed"
done

# Prints the commit to compare with, and on the next line why; nothing if there is none.
find_base() {
  local ref commit
  if [[ -n $base ]]; then
    git merge-base HEAD "$base" || fail "$base is no commit that this branch shares history with"
    echo "where this branch left $base"
    return
  fi
  for ref in main origin/main; do
    commit=$(git merge-base HEAD "$ref" 2>/dev/null) || continue
    if [[ $commit != $(git rev-parse HEAD) ]]; then
      printf '%s\n%s\n' "$commit" "where this branch left $ref"
      return
    fi
  done
  if commit=$(git rev-parse --verify --quiet HEAD~1); then
    printf '%s\n%s\n' "$commit" "the commit before the last"
  fi
}

# Prints what changed since the base, or everything.
changed() {
  if $all; then
    git ls-files
    return
  fi
  local found=()
  mapfile -t found < <(find_base)
  if ((${#found[@]} == 0)); then
    echo "No earlier commit: clang-tidy reads no file; --all reads every one" >&2
    return
  fi
  echo "Base: ${found[0]:0:12}, ${found[1]}" >&2
  git diff --name-only --diff-filter=d "${found[0]}"
  git ls-files --others --exclude-standard
}

# Prints the files named on standard input that the preset compiles. A header stands for its source
# or, without one, for the first source that includes it.
compiled() {
  local name source
  while read -r name; do
    case $name in
      *.cc) echo "$name" ;;
      *.h)
        source=${name%.h}.cc
        if [[ ! -f $source ]]; then
          source=$(git grep -l --fixed-strings "\"$name\"" -- '*.cc' | head -n 1) || true
        fi
        echo "$source"
        ;;
    esac
  done | sort -u | grep -Fx -f <(sed -n "s|^ *\"file\": \"$PWD/\(.*\)\"\$|\1|p" \
    "$build/compile_commands.json") | grep -vE "$not_ours" || true
}

# tidy SECONDS ARGUMENT...: clang-tidy over the files named on standard input, a process for each
# core. It starts no file after SECONDS; their names go to build/lint.left.
tidy() {
  local deadline=$(($(date +%s) + $1))
  shift
  : >build/lint.left
  # shellcheck disable=SC2016  # The inner shell expands these.
  grep . | xargs -r -d '\n' -I FILE -P "$(nproc)" bash -c '
    if (($(date +%s) >= $1)); then echo "$2" >>build/lint.left; else clang-tidy "${@:2}"; fi' \
    tidy "$deadline" FILE -p "$build" --quiet "$@" 2>&1 |
    grep -vE '^[0-9]+ (warning|error)s?( and [0-9]+ errors?)? (generated|treated as errors)' || true
}

findings=false
# stage NAME OUTPUT: prints a stage's findings.
stage() {
  if [[ -n $2 ]]; then
    printf '%s\n%s: failed\n' "$2" "$1"
    findings=true
  else
    echo "$1: clean"
  fi
}

stage "clang-format" "$(git ls-files '*.h' '*.cc' '*.cu' '*.cuh' |
  xargs -d '\n' clang-format --dry-run -Werror 2>&1 || true)"

cmake --preset thread-safety >"build/lint.log" 2>&1 || {
  cat build/lint.log
  fail "the preset thread-safety cannot be configured"
}
cmake --build "$build" --target tessera_generated >"build/lint.log" 2>&1 || {
  cat build/lint.log
  fail "the protocol's code cannot be generated"
}

files=$(changed | compiled)
echo "clang-tidy: $(grep -c . <<<"$files") files"
stage "clang-tidy" "$(tidy "$budget" <<<"$files")"
if [[ -s build/lint.left ]]; then
  echo "clang-tidy: $budget s are over; not read: $(wc -l <build/lint.left) files"
fi

files=$(git grep -lE --untracked "$locks" -- '*.cc' '*.h' | compiled)
echo "thread safety: $(grep -c . <<<"$files") files"
# A diagnostic of the compiler is no check: clang-tidy wants one more.
stage "thread safety" "$(tidy 86400 --checks='-*,clang-diagnostic-*,misc-static-assert' <<<"$files")"

! $findings
