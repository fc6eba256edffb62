#!/usr/bin/env bash
# Runs the tests against an installed wheel, away from the source tree: what users get.
#
#   tools/check_wheel.sh dist/ollama_metrics-*.whl         (PYTHON makes the environment)
set -euo pipefail

[ $# = 1 ] || { echo "usage: tools/check_wheel.sh WHEEL" >&2; exit 64; }
wheel=$(readlink -f "$1")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
away=$(mktemp -d)
trap 'rm -rf "$away"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1

"${PYTHON:-python3}" -m venv "$away/venv"
python=$away/venv/bin/python
"$python" -m pip install --quiet --upgrade 'pip>=25.1'
"$python" -m pip install --quiet "${wheel}[cli,demo,ollama,openai,otlp,prometheus,resources,serve]" \
  --group "$root/pyproject.toml:test"

# pyproject.toml comes along for pytest's settings; src does not.
cp -R "$root/tests" "$root/examples" "$root/tools" "$root/pyproject.toml" "$away"
cd "$away"
where=$("$python" -c 'import ometrics; print(ometrics.__file__)')
case $where in
  "$away"/venv/*) echo "testing $where" ;;
  *) echo "check_wheel: ometrics was imported from $where" >&2; exit 1 ;;
esac
"$python" -m pytest -p no:cacheprovider
