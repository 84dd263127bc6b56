#!/usr/bin/env bash
# fuzz.sh [SECONDS [TARGET…]]: builds the fuzz targets and runs them one after the other, each from its committed corpus (tests/corpus)
# into fuzz/corpus. What crashes lies in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-600}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo fuzz list)

# The sanitizers are there in every toolchain, behind this switch.
export RUSTC_BOOTSTRAP=1
export CC=$PWD/fuzz/cc CXX=$PWD/fuzz/c++
export LD_LIBRARY_PATH=$PWD/third_party/libtorch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export ASAN_OPTIONS=detect_leaks=0:detect_odr_violation=0:allocator_may_return_null=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}

cargo fuzz build --sanitizer address
for target in "${targets[@]}"; do
  echo "== $target, $seconds s"
  mkdir -p "fuzz/corpus/$target" fuzz/artifacts
  dictionary=()
  patience=(-timeout=20)
  case $target in
    header | pixels | seg) dictionary=(-dict=fuzz/dicom.dict) ;;
    # CharLS takes seconds over some broken streams; decode workers have a deadline for that.
    jpegls) patience=(-timeout=5 -fork=1 -ignore_timeouts=1) ;;
  esac
  nice -n 19 "fuzz/target/x86_64-unknown-linux-gnu/release/$target" "fuzz/corpus/$target" "tests/corpus/$target" \
    -artifact_prefix="fuzz/artifacts/$target-" -max_total_time="$seconds" "${patience[@]}" -rss_limit_mb=4096 -max_len=65536 -print_final_stats=1 "${dictionary[@]}"
done
