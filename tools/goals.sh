#!/usr/bin/env bash
# Shows that the reliability goals hold (docs/reliability.md): goals.sh nightly | release. Each step says what it counted; at the end stands one
# table, and exit status 1 says that something did not hold. SOAK=MINUTES is the length of the soak (nightly 480, release 4320; 0: none), WITHOUT="soak fuzz" leaves
# steps out, N=300 has everything done as often as goes with so many random kills.
set -uo pipefail
cd "$(dirname "$0")/.."
run=${1:?nightly or release}
case $run in
  nightly) cases=100000 shortages=100 reloads=100 soak=${SOAK:-480} fuzz=0 ;;
  release) cases=1000000 shortages=1000 reloads=1000 soak=${SOAK:-4320} fuzz=86400 ;;
  *) echo "nightly or release" >&2; exit 2 ;;
esac
if [ -n "${N:-}" ]; then
  at_least() { local n=$(($1 * N / 10000)); echo $((n > $2 ? n : $2)); }
  cases=$(at_least 1000000 2000) shortages=$(at_least 1000 20) reloads=$(at_least 1000 20)
  export STUNETD_KILLS=$N
fi
log=$(mktemp -d) held=0
step() {
  local name=$1; shift
  case " ${WITHOUT:-} " in *" $name "*) return ;; esac
  printf '\n== %s (%s s)\n' "$name" "$SECONDS"
  "$@" 2>&1 | tee "$log/$name"
  if [ "${PIPESTATUS[0]}" != 0 ]; then held=1; echo "tally $name: DID NOT HOLD" | tee -a "$log/$name"; fi
}
tests() { cargo test --quiet --release --test it -- "$@" --nocapture; }
step oracle env STUNETD_ORACLE="$run" cargo test --quiet --release --test oracle
PROPTEST_CASES=$cases step hostile tests changed_bytes:: dicom_input::guard::
STUNETD_SHORTAGES=$shortages step memory tests ladder::
STUNETD_RELOADS=$reloads step supervision tests supervision::
step many tests receive::many::
step outage tests delivery::
step unit tests service_unit::
[ "$soak" = 0 ] || step soak env STUNETD_SOAK="$soak" cargo test --quiet --release --test oracle
[ "$fuzz" = 0 ] || step fuzz tools/fuzz.sh "$fuzz"
printf '\n| goal | what held (%s, %s s) |\n|---|---|\n' "$run" "$SECONDS"
# libtest ends no line after a test that prints.
grep -ho 'tally [^|]*$' "$log"/* | sed -E 's/^tally ([^:]*): (.*)$/| \1 | \2 |/' | sort -u
rm -rf "$log"
exit $held
