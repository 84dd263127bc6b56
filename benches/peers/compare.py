#!/usr/bin/env python3
"""stunetd beside nnU-Net v2's own predictor: same weights, same study, same machine, one after the other.

    benches/peers/compare.py [real] [M] [L] [--size S|B] [--threads N] [--repeat N] [--skip-peer] [--json]

real  the real CT of shared/data with the demo model        M  512x512x100 phantom, 2 mm slices, 105 classes
L     512x512x300 phantom, 1 mm slices, 105 classes (the reference runs out of memory on a 24 GB machine; it is skipped)

Wall clock and peak memory are of the whole command, from process start. nnU-Net's imports are inside its wall clock and
shown apart, because a daemon pays them once. Needs `make build`, shared/ beside the repository and benches/peers/setup.sh.
"""
import argparse, json, os, shutil, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("STUNETD_SHARED", ROOT.parent / "shared"))
TOOLS = SHARED / "tools/bench"
WORK = ROOT / "target/peers"
STUNETD = ROOT / "target/release/stunetd"
PYTHON = ROOT / "third_party/peers/bin/python"
SHAPES = {"M": (["100", "512", "512"], ["2.0", "0.8", "0.8"]), "L": (["300", "512", "512"], ["1.0", "0.8", "0.8"])}


def run(command):
    """Seconds, peak MB and standard output of a command; its standard error goes to ours."""
    start = time.monotonic()
    child = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, cwd=TOOLS)
    out = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - start
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return seconds, usage.ru_maxrss / 1024, out.decode()


def best(command, repeat, out_dir=None):
    """The fastest run. `out_dir` is emptied before each: a result that is there already is not made again."""
    runs = []
    for _ in range(repeat):
        if out_dir:
            shutil.rmtree(out_dir, ignore_errors=True)
        runs.append(run(command))
    return min(runs, key=lambda r: r[0])


def prepare(study, size):
    """(input, nnU-Net folder, imported model)"""
    if study == "real":
        source, folder = SHARED / "data/ct_real/dicom", SHARED / "goldens/nnunet/demo_model/nnUNetTrainer__nnUNetPlans__3d_fullres"
        model = WORK / "demo"
    else:
        base = WORK / f"{study}_{size}"
        shape, spacing = SHAPES[study]
        if not (base / "ct.nii.gz").exists():
            run([PYTHON, TOOLS / "make_bench.py", base, "--size", size, "--shape", *shape, "--spacing", *spacing])
        source, folder, model = base / "ct.nii.gz", base / f"model_{size}", base / "imported"
    if not model.exists():
        run([STUNETD, "model", "import", folder, "--out", model])
    return source, folder, model


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("studies", nargs="*", default=["real"], choices=["real", "M", "L"])
    ap.add_argument("--size", default="S"); ap.add_argument("--threads", default=str(os.cpu_count())); ap.add_argument("--repeat", type=int, default=1)
    ap.add_argument("--skip-peer", action="store_true"); ap.add_argument("--json", action="store_true")
    a = ap.parse_args()
    for path, why in ((STUNETD, "run `make build`"), (TOOLS, "shared/ is not beside the repository; set STUNETD_SHARED"), (PYTHON, "run benches/peers/setup.sh")):
        if not path.exists():
            sys.exit(f"{path} is missing: {why}")
    WORK.mkdir(parents=True, exist_ok=True)
    rows = []
    for study in a.studies:
        source, folder, model = prepare(study, a.size)
        if not a.skip_peer and study != "L":
            seconds, mb, out = best([PYTHON, TOOLS / "peer_nnunet.py", source, folder, WORK / "peer.nii.gz", "--threads", a.threads], a.repeat)
            detail = json.loads(out.strip().splitlines()[-1])
            rows.append(dict(study=study, who="nnU-Net v2", precision="f32", wall_s=round(seconds, 2), imports_s=detail["import_s"], peak_mb=round(mb), stages=detail["stages"]))
        for precision in ("f32", "auto"):
            out_dir = WORK / "out"
            command = [STUNETD, "segment", source, "--model", model, "--out", out_dir, "--device", "cpu", "--precision", precision, "--format", "nifti", "--json"]
            seconds, mb, out = best(command, a.repeat, out_dir)
            rows.append(dict(study=study, who="stunetd", precision=precision, wall_s=round(seconds, 2), imports_s=0, peak_mb=round(mb), stages=json.loads(out)["results"][0]["seconds"]))
            labels = next(out_dir.glob("*/labels.nii.gz"), None)
            if labels and not a.skip_peer and study != "L":
                rows[-1]["agreement"] = agreement(labels)
    if a.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'study':6} {'who':11} {'prec.':6} {'wall s':>8} {'peak MB':>8} {'faster':>7} {'smaller':>8}  agreement")
    for r in rows:
        peer = next((p for p in rows if p["study"] == r["study"] and p["who"] != "stunetd"), None)
        faster = f"{peer['wall_s'] / r['wall_s']:.1f}x" if peer and r is not peer else ""
        smaller = f"{peer['peak_mb'] / r['peak_mb']:.1f}x" if peer and r is not peer else ""
        print(f"{r['study']:6} {r['who']:11} {r['precision']:6} {r['wall_s']:8.2f} {r['peak_mb']:8} {faster:>7} {smaller:>8}  {r.get('agreement', '')}")
    for r in rows:
        print(f"\n{r['study']} {r['who']} {r['precision']}: " + ", ".join(f"{k} {v:.2f} s" for k, v in r["stages"].items() if isinstance(v, (int, float))))


def agreement(labels):
    """Share of voxels on which both label maps agree."""
    code = "import sys,SimpleITK as s,numpy as n;a,b=(s.GetArrayFromImage(s.ReadImage(p)) for p in sys.argv[1:]);print(f'{(a==b).mean():.6f}')"
    return subprocess.run([PYTHON, "-c", code, labels, WORK / "peer.nii.gz"], capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
