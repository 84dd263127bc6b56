#!/usr/bin/env python3
"""Makes the series in this folder from the generated cases (no patients): make.py CASES TOOLS OUT

CASES is made by `make_cases.py`, which lies in TOOLS. Needs pydicom, numpy and dcmtk's dcmcjpeg.

syntax/NAME    three slices of one phantom in a transfer syntax each, with the same UIDs in all of them
odd            an odd number of 8-bit pixels, uncompressed; odd_be: in big endian words; baseline: as JPEG baseline
enhanced_j2k   a multi-frame CT in JPEG 2000, frames out of order
expected.json  SHA-256 of the voxels (f32 little endian, HU, in z, y, x order) as pydicom reads the uncompressed twin, and how much a lossy
               one may deviate
"""
import glob, hashlib, json, os, subprocess, sys
import numpy as np, pydicom
cases, tools, out = sys.argv[1:]; sys.path.insert(0, tools); import make_cases


def load(pattern): return {float(d.ImagePositionPatient[2]): d for d in (pydicom.dcmread(f) for f in sorted(glob.glob(f"{cases}/{pattern}/*.dcm")))}
def write(path, d): os.makedirs(os.path.dirname(path), exist_ok=True); open(path, "wb").write(make_cases.to_bytes(d, str(d.file_meta.TransferSyntaxUID)))
def digest(a): return hashlib.sha256(np.ascontiguousarray(a, "<f4").tobytes()).hexdigest()
def hu(ds): return np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in ds])


base = load("ts_explicit_le"); keep = sorted(base)[7:10]; expected = {"syntax": {"sha256": digest(hu([base[z] for z in keep]))}}
for c in sorted(glob.glob(cases + "/ts_*")):
    name = os.path.basename(c)[3:]; tolerance = {"jpegls_near": 2, "j2k_lossy": 40, "jpeg_extended12": 120}.get(name, 0)
    if name == "mixed_in_series": continue
    expected["syntax/" + name] = {"like": "syntax", "max_abs_error": tolerance}
    for z, d in load("ts_" + name).items():
        if z not in keep: continue
        for k in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"): setattr(d, k, base[z].get(k))
        d.file_meta.MediaStorageSOPInstanceUID = base[z].SOPInstanceUID; write(f"{out}/syntax/{name}/{keep.index(z)}.dcm", d)
odd = load("px_8bit_odd"); keep = sorted(odd)[3:6]
for i, z in enumerate(keep):
    write(f"{out}/odd/{i}.dcm", odd[z]); os.makedirs(out + "/baseline", exist_ok=True)
    subprocess.run(["dcmcjpeg", "+eb", "+q", "95", "+ua", f"{out}/odd/{i}.dcm", f"{out}/baseline/{i}.dcm"], check=True)
    d = odd[z]; b = np.frombuffer(d.PixelData, "<u2"); d.PixelData = b.byteswap().tobytes(); d["PixelData"].VR = "OW"
    d.file_meta.TransferSyntaxUID = make_cases.TS["be"]; write(f"{out}/odd_be/{i}.dcm", d)
expected["odd"] = {"sha256": digest(hu([pydicom.dcmread(f"{out}/odd/{i}.dcm") for i in range(3)]))}; expected["odd_be"] = {"like": "odd", "max_abs_error": 0}
expected["baseline"] = {"like": "odd", "max_abs_error": 100}
enhanced = pydicom.dcmread(glob.glob(cases + "/enh_ct_j2k/*.dcm")[0]); write(out + "/enhanced_j2k/0.dcm", enhanced)
manifest = json.load(open(cases + "/manifest.json")); case = next(c for c in manifest["cases"] if c["name"] == "enh_ct_j2k")
expected["enhanced_j2k"] = {"sha256": case["expect"]["volumes"][0]["sha256_f32le"]}
json.dump(expected, open(out + "/expected.json", "w"), indent=1)
