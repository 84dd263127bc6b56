#!/usr/bin/env bash
# Runs every test. Checks that lack a tool or the shared data are skipped, and counted at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

# Debian packages that tests start for real. Installed when we may; otherwise named, and their tests say that they were skipped.
packages="dcmtk orthanc orthanc-dicomweb dicom3tools prometheus strace systemd"
missing=$(for p in $packages; do dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || echo "$p"; done)
if [ -n "$missing" ] && command -v apt-get >/dev/null; then
  if [ "$(id -u)" = 0 ]; then
    echo "installing for the tests: $missing"
    # No service of theirs is to run; the tests start what they need themselves.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
      printf '#!/bin/sh\nexit 101\n' > "$policy"; chmod 755 "$policy"; trap 'rm -f "$policy"' EXIT
    else
      policy=/nonexistent
    fi
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >/dev/null 2>&1 \
      || echo "could not install $missing; the tests that need them are skipped"
    rm -f "$policy"; trap - EXIT
  else
    echo "to run every test: sudo apt-get install $missing"
  fi
fi

# Python packages of the independent judges, which lie with the shared data: no use without it.
shared=${STUNETD_SHARED:-../shared}
python=$PWD/third_party/python
if [ -d "$shared/tools" ] && [ -z "${STUNETD_PYTHON:-}" ]; then
  if ! cmp -s tests/requirements.txt "$python/requirements.txt"; then
    echo "python packages of the judges: installing into third_party/python (about 200 MB) …"
    rm -rf "$python"
    if python3 -m venv "$python" && "$python/bin/pip" install --quiet --disable-pip-version-check -r tests/requirements.txt; then
      cp tests/requirements.txt "$python/"
    else
      echo "could not install them (Debian: apt-get install python3-venv); the tests that need them are skipped"
    fi
  fi
  if [ -f "$python/requirements.txt" ]; then export STUNETD_PYTHON=$python/bin/python; fi
fi

step() { printf '\n== %s (%s s)\n' "$*" "$SECONDS"; }
export STUNETD_SKIPPED=$PWD/target/skipped.txt
mkdir -p target; : > "$STUNETD_SKIPPED"
step "format"
cargo fmt --check
step "tests"
cargo test --release
step "lints"
cargo clippy --release --all-targets --quiet -- -D warnings
echo "lints and format: clean"
skipped=$(wc -l < "$STUNETD_SKIPPED")
if [ "$skipped" -gt 0 ]; then echo; echo "$skipped checks were skipped:"; sort "$STUNETD_SKIPPED" | sed 's/^/  /'; fi
step "all done"
