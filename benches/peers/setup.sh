#!/usr/bin/env bash
# Makes a virtual environment with the reference (nnU-Net v2 and friends) under third_party/peers. Never part of `make test`.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=third_party/peers
[ -f "$venv/.done" ] && exit 0
command -v python3 >/dev/null || { echo "python3 is missing. On Debian: apt-get install python3 python3-venv" >&2; exit 1; }
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check nnunetv2==2.8.1 torch==2.11.0 SimpleITK highdicom pydicom pylibjpeg pylibjpeg-openjpeg nibabel
touch "$venv/.done"
