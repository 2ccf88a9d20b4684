#!/usr/bin/env bash
# Make dist/edgelet-VERSION-py3-none-any.whl, and dist/edgelet.pyz: one file with every dependency inside, which unpacks
# itself into ~/.shiv when first run. It holds the compiled parts for each Python below, for this kind of processor.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
PYTHONS=(3.11 3.12 3.13)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/site"
rm -rf dist
.venv/bin/python -m build --wheel --no-isolation --outdir dist . >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }

for python in "${PYTHONS[@]}"; do # compiled modules carry the version in their names, so the trees lie over each other
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --target "$work/$python" \
    --python-version "$python" --only-binary=:all: "$(echo dist/*.whl)[redis]"
  cp -a "$work/$python/." "$work/site/"
done
cat >"$work/preamble.py" <<PY
import sys
if "%d.%d" % sys.version_info[:2] not in "${PYTHONS[*]}".split():
    sys.exit("error: edgelet.pyz runs on Python ${PYTHONS[*]}, this is %d.%d" % sys.version_info[:2])
PY
.venv/bin/shiv --compressed --reproducible --site-packages "$work/site" --console-script edgelet \
  --preamble "$work/preamble.py" --python '/usr/bin/env python3' --output-file dist/edgelet.pyz
(cd dist && du -h -- *)
