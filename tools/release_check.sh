#!/usr/bin/env bash
# What needs environments of its own: the wheel that the sdist makes does the main job without extras; all
# extras can be had together; the lower bounds of pyproject.toml are true. Takes a while and several gigabytes (the oldest torch comes with CUDA).
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python3}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

echo "== the sdist and its wheel, in an empty environment"
"$PYTHON" -m venv "$work/build"
"$work/build/bin/pip" install --quiet build
"$work/build/bin/python" -m build --outdir "$work/dist" . >/dev/null
"$PYTHON" -m venv "$work/wheel"
"$work/wheel/bin/pip" install --quiet "$work"/dist/*.whl
cat > "$work/factor-tradeoff.toml" <<'TOML'
ensembles = ["Gaussian", "orthogonal"]
sizes = [8]
draws = [2]
couplings = [6, 8]
TOML
(
    cd "$work"
    wheel/bin/kappaflow --version | grep "native backend ("  # it was compiled: there is a C compiler
    wheel/bin/kappaflow fit magic --out run --depth 4 --hidden 16 --max-epochs 2 --quiet
    wheel/bin/kappaflow sample run -n 3
    wheel/bin/kappaflow doctor run
    wheel/bin/kappaflow reproduce factor-tradeoff --config factor-tradeoff.toml --out factors --quiet
    wheel/bin/python -c 'import pathlib, kappaflow as k; assert (pathlib.Path(k.__file__).parent / "py.typed").exists()'
)
"$work/wheel/bin/pip" install --quiet --dry-run "$(echo "$work"/dist/*.whl)[all]"

echo "== the lowest versions that are promised"
"$PYTHON" -m venv "$work/oldest"
"$work/build/bin/python" tools/minimum_versions.py > "$work/constraints.txt"
PIP_CONFIG_FILE=/dev/null "$work/oldest/bin/pip" install --quiet \
    --constraint "$work/constraints.txt" -e '.[dev,estimator,figures,images,transport,zuko]'
OMP_NUM_THREADS=1 "$work/oldest/bin/python" -m pytest -n 2 -m 'not slow' -q --ignore=tests/sbi \
    --ignore=tests/interop/test_sbi.py --ignore=src/kappaflow/sbi.py
