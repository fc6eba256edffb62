#!/usr/bin/env bash
# Shows that the compiled core has no data race, memory error or undefined behaviour.
#
#   tools/sanitize.sh thread|address|undefined ...         (Linux with gcc)
#
# For each sanitizer: builds an instrumented copy in build/sanitize/NAME (the normal
# in-place build stays untouched), shows that seeded faults are reported and that their
# repaired twins are not, then runs the tests and demands that nothing is reported, by
# any process that they start either. One verdict line each.
#
# Exit: 0 all clean; otherwise the first failure: 64 usage, 65 cannot run here,
#       66 a report, 67 a seeded fault was missed, 68 tests failed or none ran.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# An instrumented program is ten times slower, and finds in a few rounds what it can find.
export OMETRICS_FAULT_FACTOR=${OMETRICS_FAULT_FACTOR:-0.1}
venv=${VENV:-.venv}
export CC=${CC:-gcc}
readonly REPORTED=66  # What a sanitized process exits with after a report.

stop() { # code, words...
  local code=$1
  shift
  echo "sanitize: $*" >&2
  exit "$code"
}

# ThreadSanitizer sees the interpreter's locks only as POSIX locks: up to CPython 3.12.
# On 3.13 PyMutex is invisible to it, and correct code is reported.
is_tsan_python() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null
}

# Prints the interpreter of an environment that holds what the tests need.
find_python() { # sanitizer
  local candidate
  if [ "$1" != thread ] || is_tsan_python "$root/$venv/bin/python"; then
    echo "$root/$venv/bin/python"
    return
  fi
  for candidate in python3.12 python3.11; do
    if is_tsan_python "$candidate"; then
      make -C "$root" --no-print-directory VENV=.venv-tsan PYTHON="$candidate" \
        .venv-tsan/.installed .venv-tsan/.group-test >&2
      echo "$root/.venv-tsan/bin/python"
      return
    fi
  done
  stop 65 "ThreadSanitizer needs CPython 3.11 or 3.12, and neither was found"
}

settings() { # sanitizer: sets flags, runtime, options, canaries and selection
  local common="exitcode=$REPORTED:log_path=$work/reports/report"
  case $1 in
    thread)
      flags=thread
      runtime=libtsan.so
      # Goes on after a report; forked children exist, but their threads are not checked.
      options=(TSAN_OPTIONS="$common:halt_on_error=0:die_after_fork=0:suppressions=$root/tools/tsan_suppressions.txt")
      canaries=(data_race)
      # What has threads: the core, faults, events, the instrumented client, the endpoint.
      paths=(tests/core tests/faults tests/test_events.py tests/test_event_account.py
        tests/instrumentation/ollama_client tests/serve)
      selection="not (fork or slow or real or sanitize_skip)"
      ;;
    address)
      flags=address
      runtime=libasan.so
      # CPython itself leaks at exit; with its own allocator a freed block would stay in
      # an arena, where the sanitizer does not see it.
      options=(ASAN_OPTIONS="$common:halt_on_error=1:detect_leaks=0"
        PYTHONMALLOC=malloc)
      canaries=(heap_overflow use_after_free)
      selection="not (fork or slow or real or sanitize_skip)"
      ;;
    undefined)
      # The second is not part of the first, and the core casts floats to indexes.
      flags=undefined,float-cast-overflow
      runtime=libubsan.so
      options=(UBSAN_OPTIONS="$common:halt_on_error=1:print_stacktrace=1")
      canaries=(signed_overflow float_cast)
      selection="not (fork or slow or real or sanitize_skip)"
      ;;
    *) stop 64 "usage: tools/sanitize.sh thread|address|undefined ..." ;;
  esac
  runtime=$(readlink -f "$("$CC" -print-file-name="$runtime")")
  [ -f "$runtime" ] || stop 65 "$CC has no runtime for the sanitizer '$1'"
  # The runtime looks for C++'s throw when it starts: CPython does not bring it along, and
  # the first exception in a C++ extension of a test's peer would end the process.
  runtime+=":$(readlink -f "$("$CC" -print-file-name=libstdc++.so.6)")"
}

# Sanitizers place shadow memory at fixed addresses, which a randomised layout may take.
unrandomised=()
if setarch -R true 2>/dev/null; then unrandomised=(setarch -R); fi

instrumented() { # command...: runs it in the sanitizer's environment
  rm -rf "$work/reports"
  mkdir "$work/reports"
  "${unrandomised[@]}" env LD_PRELOAD="$runtime" "${options[@]}" "$@"
}

reports() { find "$work/reports" -type f -size +0; }

copy_project() {
  rm -rf "$work"
  mkdir -p "$work"
  tar -C "$root" -cf - --exclude='*.so' --exclude=__pycache__ --exclude='*.egg-info' \
    --exclude='src/ometrics/_*.c' \
    src tests tools examples benchmarks pyproject.toml setup.py LICENSE README.md \
    | tar -C "$work" -xf -
}

build_instrumented() {
  local module symbols cflags
  # CPython compiles extensions with -fwrapv, under which no addition can overflow and
  # UBSan looks for none: a canary built without it would prove nothing about the core.
  export OMETRICS_CFLAGS="${OMETRICS_CFLAGS:-} -fno-wrapv"
  OMETRICS_SANITIZE=$flags "$python" setup.py --quiet build_ext --inplace
  for module in src/ometrics/*.so; do
    symbols=$(nm -D --undefined-only "$module")
    [[ $symbols =~ __(tsan|asan|ubsan)_ ]] \
      || stop 65 "$module was built without instrumentation"
  done
  read -ra cflags < <("$python" -c 'import sysconfig
print(sysconfig.get_config_var("CFLAGS"), end=" ")
print(sysconfig.get_config_var("CCSHARED"))')
  # shellcheck disable=SC2086  # Several flags.
  "$CC" "${cflags[@]}" "-fsanitize=$flags" -O1 -g -w $OMETRICS_CFLAGS \
    -shared tools/canary/canary.c -o build/canary.so -lpthread
}

canary() { # function, faulty|repaired: succeeds if the fault is told from its repair
  local code=0
  instrumented "$python" tools/canary/run.py "$work/build/canary.so" "$1" "$2" || code=$?
  case $2 in
    faulty) [ "$code" = "$REPORTED" ] && grep -rq canary.c "$work/reports" ;;
    repaired) [ "$code" = 0 ] && [ -z "$(reports)" ] ;;
  esac
}

check_canaries() {
  local name variant
  for name in "${canaries[@]}"; do
    for variant in faulty repaired; do
      canary "$name" "$variant" \
        || stop 67 "$sanitizer: FAILED, the $variant $name was taken for its opposite"
    done
  done
}

run_tests() { # pytest's output goes to the terminal and to pytest.log
  local code=0
  PYTHONPATH=$work/src OMETRICS_SANITIZE=$sanitizer instrumented \
    "$python" -m pytest -p no:cacheprovider -o faulthandler_timeout=600 -m "$selection" \
    ${paths+"${paths[@]}"} \
    | tee pytest.log || code=$?

  if [ -n "$(reports)" ]; then
    reports | sed 3q | xargs head -n 60 || true
    stop "$REPORTED" "$sanitizer: FAILED, $(reports | wc -l) processes with reports"
  fi
  [ "$code" = 0 ] || stop 68 "$sanitizer: FAILED, pytest ended with $code"
}

if [ $# -gt 1 ]; then
  verdict=0
  for sanitizer in "$@"; do
    code=0
    "${BASH_SOURCE[0]}" "$sanitizer" || code=$?
    if [ "$verdict" = 0 ]; then verdict=$code; fi
  done
  exit "$verdict"
fi

sanitizer=${1:-}
work=$root/build/sanitize/$sanitizer
settings "$sanitizer"
python=$(find_python "$sanitizer")
copy_project
cd "$work"
build_instrumented
check_canaries
run_tests
echo "sanitize: $sanitizer: clean; seeded faults caught: ${canaries[*]};" \
  "0 reports; $(tail -n 1 pytest.log | sed 's/^=* *//; s/ *=*$//')"
