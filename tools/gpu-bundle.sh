#!/usr/bin/env bash
# Packs what tests and measures a GPU on a machine without compiler, network and repository: target/gpu/stunetd-gpu/ and the same as
# target/gpu/stunetd-gpu.tar.gz, less than 50 MiB. There: unpack it anywhere and start run.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
LIMIT=$((50 << 20))
cargo=${CARGO:-cargo} shared=${STUNETD_SHARED:-../shared}
out=target/gpu/stunetd-gpu

# pack NAME COMMAND…: builds a test or bench and strips it into the bundle.
pack() {
  local name=$1 built; shift
  built=$("$cargo" "$@" --message-format=json-render-diagnostics | python3 -c '
import json, sys
print([m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable") and m["target"]["name"] == sys.argv[1]][-1])' "$name")
  strip -o "$out/target/release/$name" "$built"
}

rm -rf "$out"
mkdir -p "$out/target/release" "$out/target/lib" "$out/models" "$out/tests" "$out/tools" "$out/shared/goldens"
"$cargo" build --release --quiet
strip -o "$out/target/release/stunetd" target/release/stunetd
pack it test --quiet --release --no-run --test it
for bench in stages network; do pack $bench bench --quiet --no-run --bench $bench; done
cp -r models/demo "$out/models/"
mkdir -p "$out/tests/goldens"
cp -r tests/goldens/stunet tests/goldens/nnunet "$out/tests/goldens/"
cp tools/find-libtorch.sh "$out/tools/"
cp tools/gpu-run.sh "$out/run.sh"
if [ -d "$shared/goldens" ]; then
  # The real CTs and what the reference made of them.
  mkdir -p "$out/shared/data" "$out/shared/goldens/nnunet" "$out/shared/goldens/stunet"
  cp -rL --no-preserve=mode "$shared/data/ct_real" "$shared/data/ct_nifti" "$out/shared/data/"
  cp -rL --no-preserve=mode "$shared/goldens/nnunet/e2e" "$out/shared/goldens/nnunet/"
  for golden in tiny_forward tiny_sliding_window deep_forward transfer_1to2; do
    cp -L --no-preserve=mode "$shared/goldens/stunet/$golden.safetensors" "$out/shared/goldens/stunet/"
  done
else
  echo "without the real CTs: $shared is not there (STUNETD_SHARED names it)"
fi
tar -C target/gpu --owner=0 --group=0 --numeric-owner -cf - stunetd-gpu | gzip -9 > target/gpu/stunetd-gpu.tar.gz
size=$(stat -c %s target/gpu/stunetd-gpu.tar.gz)
echo "target/gpu/stunetd-gpu.tar.gz: $((size >> 20)) MiB, unpacked $(du -sm "$out" | cut -f1) MiB"
[ "$size" -lt $LIMIT ] || { echo "more than $((LIMIT >> 20)) MiB" >&2; exit 1; }
