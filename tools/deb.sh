#!/usr/bin/env bash
# Builds the Debian package from target/release, then unpacks it somewhere else and runs what it holds.
set -euo pipefail
cd "$(dirname "$0")/.."

version=3.8.0
root=$PWD/third_party/tools
if ! "$root/bin/cargo-deb" --version 2>/dev/null | grep -qx "cargo-deb $version"; then
  echo "cargo-deb $version: building into third_party/tools …"
  # Nothing of it needs this repository's flags or libraries.
  (cd / && "${CARGO:-cargo}" install --quiet --locked --root "$root" "cargo-deb@$version")
fi
for tool in dpkg-deb dpkg-shlibdeps; do
  command -v "$tool" >/dev/null || { echo "deb: $tool is missing (Debian: apt-get install dpkg-dev)" >&2; exit 1; }
done
# Quick compression; XZ=1 makes the package an eighth smaller and takes minutes.
package=$("$root/bin/cargo-deb" deb --no-build --quiet $([ -n "${XZ:-}" ] || echo --fast))
unpacked=$(mktemp -d); trap 'rm -rf "$unpacked"' EXIT
dpkg-deb -x "$package" "$unpacked"
LD_LIBRARY_PATH='' tools/try-package.sh "$unpacked"
printf '%s: %s, %s unpacked\n' "${package#"$PWD/"}" "$(du -h "$package" | cut -f1)" "$(du -sh "$unpacked" | cut -f1)"
