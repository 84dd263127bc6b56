#!/usr/bin/env bash
# Prints the folder of libraries of a libtorch 2.11: what STUNETD_LIBTORCH or LIBTORCH names, third_party's, or the one of a python's `torch`.
# With --cuda only one with CUDA, and only where there is a GPU. Where there is none: exit 1, and a sentence on standard error why.
set -uo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
VERSION=2.11
cuda=$([ "${1:-}" = --cuda ] && echo 1)

die() { printf 'skipped: %s\n' "$*" >&2; exit 1; }

gpu() {
  local smi
  for smi in nvidia-smi /usr/local/nvidia/bin/nvidia-smi; do
    command -v "$smi" >/dev/null 2>&1 && "$smi" -L 2>/dev/null | grep -q '^GPU' && return 0
  done
  compgen -G '/dev/nvidia[0-9]*' >/dev/null
}

# The version that a folder of libraries says it has.
version() {
  local file
  for file in "$1/../version.py" "$1/../build-version" "$1/.."/.version-*; do
    case $file in
      *version.py) sed -n "s/^__version__ = '\([^']*\)'.*/\1/p" "$file" 2>/dev/null ;;
      *build-version) cat "$file" 2>/dev/null ;;
      *) [ -e "$file" ] && echo "${file##*/.version-}" ;;
    esac
  done | head -1
}

candidates() {
  printf '%s\n' "${STUNETD_LIBTORCH:-}" "${LIBTORCH:-}" "$here/third_party/cuda" "$here/third_party/libtorch"
  local python
  for python in "${STUNETD_PYTHON:-}" python3 python; do
    [ -n "$python" ] && command -v "$python" >/dev/null 2>&1 || continue
    "$python" -c 'import importlib.util as u; s = u.find_spec("torch"); print(list(s.submodule_search_locations)[0] if s else "")' 2>/dev/null
  done
}

[ -z "$cuda" ] || gpu || die "no GPU on this machine"
others=
while IFS= read -r folder; do
  [ -n "$folder" ] || continue
  for lib in "$folder" "$folder/lib" "$folder/torch/lib"; do
    [ -f "$lib/libtorch_cpu.so" ] || continue
    [ -z "$cuda" ] || [ -f "$lib/libtorch_cuda.so" ] || continue
    found=$(version "$lib")
    case $found in
      "$VERSION".*) readlink -f "$lib"; exit 0 ;;
      *) others="$others $lib (${found:-of unknown version})" ;;
    esac
  done
done < <(candidates)
die "no libtorch $VERSION${cuda:+ with CUDA}; STUNETD_LIBTORCH or LIBTORCH names one, or a python3 has torch $VERSION${others:+; seen:$others}"
