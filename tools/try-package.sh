#!/usr/bin/env bash
# Runs the program of an unpacked package (or of an installed one: `/`) with the libraries and files that came with it.
set -euo pipefail
top=${1%/}
bin=$top/usr/bin/stunetd
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
libraries=$(ldd "$bin" | grep -E 'libtorch|libc10|libgomp')
if grep -v "$top/usr/lib/stunetd\|/usr/bin/../lib/stunetd" <<< "$libraries"; then echo "these come from elsewhere" >&2; exit 1; fi
"$bin" --version
"$bin" check-config "$top/etc/stunetd/stunetd.toml"
"$bin" doctor | head -20
"$bin" demo "$work/study" >/dev/null
"$bin" segment "$work/study" --model "$top/usr/share/stunetd/models/demo" --out "$work/out" --device cpu --json > "$work/answer.json"
"$bin" demo --compare "$(dirname "$(find "$work/out" -name manifest.json)")" "$work/study" | tail -1
