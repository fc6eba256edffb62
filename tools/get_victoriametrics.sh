#!/usr/bin/env bash
# Fetches VictoriaMetrics for the tests marked `real` and prints where the program is.
#
#   tools/get_victoriametrics.sh [DIRECTORY]     default: $XDG_CACHE_HOME/ometrics
#
# Debian's stable releases have a version from before OTLP, so the package comes from
# sid: with an apt configuration of its own, from the mirror that this machine uses, and
# unpacked, not installed. Nothing outside DIRECTORY is written; no root needed.
set -euo pipefail

directory=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/ometrics}
package=victoria-metrics
program=$directory/$package

if [[ -x $program ]]; then
    echo "$program"
    exit
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    echo "no apt here: install VictoriaMetrics by hand (1.145 is what was tried)" >&2
    exit 3
fi

# shellcheck disable=SC2016  # apt's own variables
mirror=$(apt-get indextargets --format '$(CREATED_BY) $(REPO_URI)' |
    sed -n 's|^Packages \(.*/debian/\?\)$|\1|p' | sort -u | head -n 1)
if [[ -z $mirror ]]; then
    echo "apt has no Debian mirror here" >&2
    exit 3
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,archives/partial,parts}
: >"$work/status"
cat >"$work/sources.list" <<SOURCES
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main
SOURCES
cat >"$work/apt.conf" <<CONF
Dir::State "$work";
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work";
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "$work/parts";
Dir::Etc::preferencesparts "$work/parts";
Acquire::Languages "none";
APT::Get::List-Cleanup "false";
APT::Sandbox::User "";
CONF
export APT_CONFIG=$work/apt.conf

cd "$work"
apt-get -qq update >&2
apt-get -qq download "$package" >&2
dpkg -x ./"$package"_*.deb unpacked
# Takes its name in one step: another run sees nothing or all of it.
mkdir -p "$directory"
cp "unpacked/usr/bin/$package" "$program.$$"
mv "$program.$$" "$program"
echo "$program"
