#!/bin/bash
# Runs every fuzz target of the module for FUZZTIME each (1m), FUZZ_JOBS (4) of them at a time with one worker each. Arguments are
# names of targets; without any it runs all. A target that fails is named with the input that it failed with, which go test has written into
# testdata beside the target: from then on every test run has it as a seed. Exit status 1 then, after all the others have run.
set -euo pipefail
cd "$(dirname "$0")/.."
export FUZZTIME="${FUZZTIME:-1m}"

# One target: package, directory, name.
run() {
  local package=$1 directory=$2 target=$3 out why input execs status=0
  out=$(go test -run='^$' -fuzz="^$target\$" -fuzztime="$FUZZTIME" -parallel=1 "$package" </dev/null 2>&1) || status=$?
  if [ "$status" = 0 ]; then
    if ! grep -q '^fuzz: elapsed: ' <<<"$out"; then # a name in a string, for instance: go test says ok
      echo "FAIL: there is no fuzz target $target in $package"
      return 1
    fi
    # FUZZTIME begins with the inputs that are there already, which are not counted.
    execs=$(grep -oE 'execs: [1-9][0-9]*' <<<"$out" | tail -n 1 || true)
    echo "fuzzed $target of $package: ${execs:-no further than its seeds, FUZZTIME is short}"
    return 0
  fi
  # https://go.dev/issue/75804: the end of FUZZTIME itself can be reported as a failure. No input is written then.
  why=$(grep -A 1 -E '^--- FAIL: ' <<<"$out" | sed -n '2s/^ *//p' || true)
  if [ "$why" = "context deadline exceeded" ]; then
    echo "fuzzed $target of $package: until the time was over"
    return 0
  fi
  echo "FAIL: fuzz target $target of $package"
  input=$(sed -n 's/^ *Failing input written to //p' <<<"$out" | tail -n 1)
  [ -z "$input" ] || echo "input: $directory/$input"
  tail -n 60 <<<"$out"
  return 1
}

if [ "${1:-}" = --run ]; then
  run "$2" "$3" "$4"
  exit
fi

files='{{$p := .ImportPath}}{{$d := .Dir}}{{range .TestGoFiles}}{{$p}} {{$d}} {{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$p}} {{$d}} {{.}}{{"\n"}}{{end}}'
targets=$(go list -f "$files" ./... | while read -r package directory file; do
  [ -n "$package" ] || continue
  sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$directory/$file" | while read -r target; do
    [ $# = 0 ] || [[ " $* " == *" $target "* ]] || continue
    echo "$package ${directory#"$PWD"/} $target"
  done
done)
[ -n "$targets" ] || { echo "fuzz: no such target: $*" >&2; exit 2; }
xargs -P "${FUZZ_JOBS:-4}" -n 3 "$0" --run <<<"$targets" || exit 1
