#!/usr/bin/env bash
# Checks of a release that need environments of their own: the sdist; its wheel with the native backend, and
# the pure one that a machine without a compiler gets, each without extras; that all extras can be installed
# together; the lower bounds of pyproject.toml. Takes a while and several gigabytes (the oldest torch has CUDA).
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python3}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

echo "== the sdist and its wheels, in an empty environment"
"$PYTHON" -m venv "$work/build"
"$work/build/bin/pip" install --quiet build
"$work/build/bin/python" -m build --outdir "$work/dist" . >/dev/null
CC=no-compiler "$work/build/bin/pip" wheel --quiet --no-deps --wheel-dir "$work/pure" "$work"/dist/*.tar.gz
platform=("$work"/dist/kappaflow-*-py3-none-[!a]*.whl) pure=("$work"/pure/kappaflow-*-py3-none-any.whl)
cat > "$work/factor-tradeoff.toml" <<'TOML'
ensembles = ["Gaussian", "orthogonal"]
sizes = [8]
draws = [2]
couplings = [6, 8]
TOML
"$PYTHON" -m venv "$work/wheel"
for wheel in "${platform[0]}" "${pure[0]}"; do
    "$work/wheel/bin/pip" install --quiet "$wheel"
    (
        cd "$work"
        rm -rf run factors
        wheel/bin/kappaflow --version | tee version
        wheel/bin/kappaflow fit magic --out run --depth 4 --hidden 16 --max-epochs 2 --quiet
        wheel/bin/kappaflow sample run -n 3
        wheel/bin/kappaflow doctor run
        wheel/bin/kappaflow reproduce factor-tradeoff --config factor-tradeoff.toml --out factors --quiet
        wheel/bin/python -c 'import pathlib, kappaflow as k; assert (pathlib.Path(k.__file__).parent / "py.typed").exists()'
    )
    case "$wheel" in
        *-any.whl) grep -q "no native backend" "$work/version" ;;
        *) grep -q "native backend (" "$work/version" ;;
    esac
    "$work/wheel/bin/pip" uninstall --quiet --yes kappaflow
done
"$work/wheel/bin/pip" install --quiet --dry-run "${platform[0]}[all]"

echo "== the lowest versions that are promised"
"$PYTHON" -m venv "$work/oldest"
"$work/oldest/bin/pip" install --quiet --upgrade 'pip>=25.1'
"$work/build/bin/python" tools/minimum_versions.py > "$work/constraints.txt"
PIP_CONFIG_FILE=/dev/null "$work/oldest/bin/pip" install --quiet \
    --constraint "$work/constraints.txt" -e '.[estimator,figures,images,zuko]' --group dev
OMP_NUM_THREADS=1 "$work/oldest/bin/python" -m pytest -n 2 -m 'not slow' -q --ignore=tests/sbi \
    --ignore=tests/interop/test_sbi.py --ignore=src/kappaflow/sbi.py
