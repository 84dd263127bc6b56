#!/usr/bin/env bash
# Runs what `make gpu-bundle` packed: the tests, then the benches. No compiler, no network, no repository.
#
#   ./run.sh [REPORT]     writes REPORT/report.json, REPORT/report.txt and the full logs (default: report beside this script)
#
# Needs a libtorch 2.11 (tools/find-libtorch.sh says where it looks). Without a GPU the tests of the CPU run, those of the GPU are
# skipped, and the bench is the smallest. STUDY, MODEL, SIZE and MORE choose what is measured.
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")" || exit 1
report=${1:-$PWD/report}
mkdir -p "$report" && report=$(cd "$report" && pwd) || exit 1
export STUNETD_ROOT=$PWD STUNETD_SHARED=${STUNETD_SHARED:-$PWD/shared} STUNETD_SKIPPED=$report/skipped.txt
: > "$STUNETD_SKIPPED"
started=$(date -u +%Y-%m-%dT%H:%M:%SZ)
text=$report/report.txt; : > "$text"
say() { printf '%s\n' "$*" | tee -a "$text"; }

libraries=$(tools/find-libtorch.sh) || { say "nothing ran: see above"; exit 1; }
ln -sfn "$libraries" target/lib/stunetd
if cuda=$(tools/find-libtorch.sh --cuda 2> "$report/no-gpu.txt"); then
  export STUNETD_LIBTORCH=$cuda STUNETD_GPU=1
  smi=$(command -v nvidia-smi || echo /usr/local/nvidia/bin/nvidia-smi)
  gpu=$("$smi" --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -1)
  study=${STUDY:-S,M,L} model=${MODEL:-demo,S,B,H} size=${SIZE:-S,B,L,H} more=${MORE:-4} device=cuda:0 precision=f32,bf16,f16
else
  unset STUNETD_LIBTORCH
  gpu= study=${STUDY:-S} model=${MODEL:-demo} size=${SIZE:-S} more=${MORE:-0} device=cpu precision=f32,auto
  say "GPU: $(cat "$report/no-gpu.txt")"
fi
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)
say "$started  ${gpu:-no GPU}  ${cpu}, $(nproc) threads, load $(cut -d' ' -f1-3 /proc/loadavg)  libtorch $libraries"

failed=0
# tests NAME FILTER…: runs a part of the tests; leaves its last line and how many were skipped.
tests() {
  local name=$1 before after; shift
  before=$(wc -l < "$STUNETD_SKIPPED")
  target/release/it "$@" > "$report/tests-$name.txt" 2>&1; local exit=$?
  after=$(wc -l < "$STUNETD_SKIPPED")
  [ $exit = 0 ] || failed=1
  result=$(grep '^test result' "$report/tests-$name.txt" | tail -1)
  say "tests, $name: ${result:-no result, exit $exit}; $((after - before)) checks skipped"
  sed -n 's/.*skipped: /    skipped: /p' "$report/tests-$name.txt" | sort | uniq -c | tee -a "$text"
  [ $exit = 0 ] || grep -E '^test .*FAILED|panicked at' -A2 "$report/tests-$name.txt" | tee -a "$text"
  json="{\"exit\": $exit, \"result\": \"${result//\"/}\", \"skipped\": $((after - before))}"
}
tests gpu --nocapture --test-threads=1 gpu::; gpu_tests=$json
tests cpu --nocapture network:: aggregation:: engine:: segmentation:: pipeline_e2e::; cpu_tests=$json

# bench NAME PROGRAM ARGUMENT…: its JSON, or null where it failed; its table goes into the text.
bench() {
  local name=$1; shift
  if "$@" --json > "$report/$name.json" 2> "$report/$name.txt"; then json=$(cat "$report/$name.json"); else failed=1; json=null; fi
  say "bench, $name:"; tee -a "$text" < "$report/$name.txt"
}
bench network target/release/network --device $device --size "$size" --precision $precision; network=$json
bench stages target/release/stages --device $device --study "$study" --model "$model" --more "$more"; stages=$json

quoted() { printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"; }
cat > "$report/report.json" <<EOF
{"started": "$started", "gpu": $(quoted "$gpu"), "cpu": $(quoted "$cpu"), "threads": $(nproc), "libtorch": $(quoted "$libraries"),
 "tests": {"gpu": $gpu_tests, "cpu": $cpu_tests}, "network": $network, "stages": $stages}
EOF
say "$([ $failed = 0 ] && echo 'all passed' || echo 'SOMETHING FAILED'): $report/report.json"
exit $failed
