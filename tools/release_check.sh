#!/usr/bin/env bash
# Checks of a release that need environments of their own: the sdist; its wheel with the native backend, and
# the pure one that a machine without a compiler gets, each without extras; that all extras can be installed
# together; the lowest and the newest packages, by versions_check.sh. Takes a while and several gigabytes.
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

rm -rf "$work"
tools/versions_check.sh --all
