#!/usr/bin/env bash
# Checks the wheel with the lowest versions of its dependencies that pyproject.toml admits, and with the newest
# ones. Each gets an empty environment outside the checkout, where the blocks of the README, further commands and
# tests of the public interface run; with --all the whole default suite runs. Needs two Pythons, and 8 GB of disk
# for a while, since releases of torch bring CUDA along. The lowest numpy has no wheel for Python 3.13.
#
#   tools/versions_check.sh [--all] [lowest|newest]...        PYTHON_LOWEST=python3.11 PYTHON_NEWEST=python3.13
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
declare -A python=([lowest]="${PYTHON_LOWEST:-python3.11}" [newest]="${PYTHON_NEWEST:-python3.13}")
TESTS=(
    test_contract.py test_files.py test_plot.py test_summary.py test_linearization.py flows training/test_fit.py
    training/test_checkpoints_and_metrics.py interop/exports interop/test_wrap.py runs/test_page.py cli/test_tiny_tables.py
    estimator diagnosis/test_doctor.py conditioning
)
TABLES='
import kappaflow, polars
table = kappaflow.load_table("magic").select(range(2000))
frame = polars.DataFrame(table.values, schema=table.columns)
frame.write_parquet("events.parquet"), frame.write_csv("more.csv")
'
export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 MPLBACKEND=agg
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

"${python[newest]}" -m venv "$work/build"
"$work/build/bin/pip" install --quiet build packaging
"$work/build/bin/python" -m build --outdir "$work/dist" "$root" >/dev/null
wheel=("$work"/dist/*.whl)

check() { # NAME: an environment, the README, and the tests
    local bin="$work/$1/bin" constraint=()
    [ "$1" = newest ] || constraint=(--constraint "$work/lowest.txt")
    "${python[$1]}" -m venv "$work/$1"
    "$bin/pip" install --quiet "${constraint[@]}" "${wheel[0]}"
    mkdir "$work/$1/run"
    (
        cd "$work/$1/run"
        PATH="$bin:$PATH"
        python -c 'import sys, numpy, torch; print("Python", sys.version.split()[0], "torch", torch.__version__, "numpy", numpy.__version__)'
        python "$root/docs/run_page.py" "$root/README.md" .
        python -c "$TABLES"
        sed -n 's/^kappaflow fit /&--max-epochs 1 --search-time 5 /; /^kappaflow .* runs\/events/p' "$root/README.md" |
            bash -ex
        kappaflow doctor runs/events
        kappaflow export runs/events --out exported
    )
    "$bin/pip" install --quiet --upgrade 'pip>=25.1'
    "$bin/pip" install --quiet "${constraint[@]}" "${wheel[0]}[estimator,figures,files,images,onnx,zuko]" \
        --group "$root/pyproject.toml:dev"
    (cd "$root" && "$bin/python" -m pytest -p no:cacheprovider -q -n 2 -m 'not slow' "${tests[@]}")
}

(cd "$root" && "$work/build/bin/python" tools/minimum_versions.py) > "$work/lowest.txt"
tests=("${TESTS[@]/#/tests/}")
if [ "${1:-}" = --all ]; then
    shift
    # sbi is not installed. Other packages than the locked ones change the last digits of stored results.
    tests=(tests --ignore=tests/interop/test_density_estimator.py --ignore=tests/interop/test_sbi.py --ignore=tests/benchmarks
        --ignore=tests/docs --ignore=tests/studies/test_pages.py)
fi
[ $# -gt 0 ] || set -- lowest newest
for name in "$@"; do
    started=$SECONDS
    echo "== the $name versions"
    check "$name"
    echo "== the $name versions: $((SECONDS - started)) s"
    rm -rf "${work:?}/$name"
done
