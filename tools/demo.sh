#!/usr/bin/env bash
# From a fresh clone to a first result: sets up libtorch, builds, starts the daemon on a generated study with the demo model,
# waits for the DICOM-SEG, checks it, stops the daemon. Everything it writes lies in .demo/.
set -euo pipefail
cd "$(dirname "$0")/.."
start=$SECONDS

die() { printf 'demo: %s\n' "$*" >&2; exit 1; }
say() { printf '\n== %s\n' "$*"; }

cargo=${CARGO:-cargo}
say "libtorch"
tools/setup-libtorch.sh
say "building"
"$cargo" build --release
bin=$PWD/target/release/stunetd
demo=$PWD/.demo
[ -f models/demo/manifest.toml ] || die "models/demo is missing; this clone is not whole"

say "a study: a generated phantom, no patient"
"$bin" demo "$demo/incoming"
# Results of an earlier run go, and what is known of them, so that there is something to see.
rm -rf "$demo/results" "$demo/state"
cat > "$demo/stunetd.toml" <<TOML
drain = "10 s"
state = "state"
[[watch]]
path = "incoming"
[intake]
quiet = "1 s"
[model]
path = "../models/demo"
[output]
path = "results"
formats = ["seg", "nifti", "preview"]
[http]
listen = "127.0.0.1:0"
TOML
"$bin" check-config "$demo/stunetd.toml"

say "the daemon"
"$bin" serve --config "$demo/stunetd.toml" 2> "$demo/stunetd.log" &
daemon=$!
stop() { kill -KILL "$daemon" 2>/dev/null || true; }
trap stop EXIT
result=
for _ in $(seq 1500); do
  for manifest in "$demo"/results/*/manifest.json; do [ -f "$manifest" ] && result=$(dirname "$manifest"); done
  [ -z "$result" ] || break
  kill -0 "$daemon" 2>/dev/null || { cat "$demo/stunetd.log" >&2; die "the daemon ended by itself"; }
  if grep -q ' parked: ' "$demo/stunetd.log"; then cat "$demo/stunetd.log" >&2; die "the study was parked"; fi
  sleep 0.2
done
[ -n "$result" ] || { cat "$demo/stunetd.log" >&2; die "no result within five minutes"; }
cat "$demo/stunetd.log"

say "the result, checked"
"$bin" demo "$demo/incoming" --compare "$result"
if command -v dciodvfy >/dev/null; then
  errors=$(dciodvfy -new "$result/seg.dcm" 2>&1 | grep '^Error' || true)
  [ -z "$errors" ] || die "dciodvfy finds faults in the SEG: $errors"
  echo "dciodvfy: no errors"
else
  echo "dciodvfy is not installed (Debian: dicom3tools); its check is left out"
fi

say "stopping the daemon"
kill -TERM "$daemon"
rc=0; wait "$daemon" || rc=$?
trap - EXIT
[ "$rc" = 0 ] || { tail -5 "$demo/stunetd.log" >&2; die "the daemon ended with exit code $rc"; }
echo "it finished its work and ended with exit code 0"

say "done in $((SECONDS - start)) s"
cat <<TXT
SEG      $result/seg.dcm
picture  $result/preview.png
study    $demo/incoming
log      $demo/stunetd.log
TXT
