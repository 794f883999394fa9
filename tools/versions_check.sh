#!/usr/bin/env bash
# Checks the wheel in empty environments outside the checkout: the Python blocks and the commands of the README, and
# tests. An environment is a Python version, with the newest packages (or those of PIP_CONSTRAINT), or "lowest":
# Python 3.11 with the lowest packages that pyproject.toml admits. By default, these are "lowest" and each Python of
# the classifiers; a Python that is not installed is skipped. Needs 8 GB of disk for a while, since releases of torch
# bring CUDA along.
#
#   tools/versions_check.sh [--short | --all] [lowest | 3.X]...
#
# The tests are those of the public interface; with --short the contract and each command once; with --all the whole
# default suite.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
short=(tests/test_contract.py tests/cli/test_every_command.py tests/cli/test_options.py)
tests=(
    "${short[@]}" tests/test_files.py tests/test_plot.py tests/test_summary.py tests/test_linearization.py tests/flows
    tests/training/test_fit.py tests/training/test_checkpoints_and_metrics.py tests/interop/exports
    tests/interop/test_wrap.py tests/runs/test_page.py tests/estimator tests/diagnosis/test_doctor.py tests/conditioning
)
# sbi is not installed. Other packages than the locked ones change the last digits of stored results.
all=(tests --ignore=tests/interop/test_density_estimator.py --ignore=tests/interop/test_sbi.py --ignore=tests/benchmarks
    --ignore=tests/docs --ignore=tests/studies/test_pages.py)
extras="estimator,figures,files,images,onnx,zuko"
for_tests=(--group "$root/pyproject.toml:dev")
TABLES='
import kappaflow, polars
table = kappaflow.load_table("magic").select(range(2000))
frame = polars.DataFrame(table.values, schema=table.columns)
frame.write_parquet("events.parquet"), frame.write_csv("more.csv")
'
export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 MPLBACKEND=agg
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

case "${1:-}" in
    --short) shift; tests=("${short[@]}") extras=images,zuko for_tests=(pytest pytest-xdist hypothesis) ;;
    --all) shift; tests=("${all[@]}") ;;
esac
[ $# -gt 0 ] || set -- lowest $(sed -n 's/.*"Programming Language :: Python :: \(3\.[0-9]*\)".*/\1/p' "$root/pyproject.toml")

python3 -m venv "$work/build"
"$work/build/bin/pip" wheel --quiet --no-deps --wheel-dir "$work/dist" "$root"
wheel=("$work"/dist/*.whl)
if [[ " $* " == *" lowest "* ]]; then
    "$work/build/bin/pip" install --quiet packaging
    (cd "$root" && "$work/build/bin/python" tools/minimum_versions.py) > "$work/lowest.txt"
fi

check() { # PYTHON [PIP OPTION]...: an environment, the README, and the tests
    local python="$1" bin="$work/env/bin"
    shift
    "$python" -m venv "$work/env"
    "$bin/pip" install --quiet --upgrade 'pip>=25.1'
    "$bin/pip" install --quiet "$@" "${wheel[0]}"
    mkdir "$work/env/run"
    (
        cd "$work/env/run"
        PATH="$bin:$PATH"
        python -c 'import sys, numpy, torch; print("Python", sys.version.split()[0], "torch", torch.__version__, "numpy", numpy.__version__)'
        kappaflow --version
        python "$root/docs/run_page.py" "$root/README.md" .
        python -c "$TABLES"
        sed -n 's/^kappaflow fit /&--max-epochs 1 --search-time 5 /; /^kappaflow .* runs\/events/p' "$root/README.md" |
            bash -ex
        kappaflow doctor runs/events
        kappaflow export runs/events --out exported
    )
    "$bin/pip" install --quiet "$@" "${wheel[0]}[$extras]" "${for_tests[@]}"
    (cd "$root" && "$bin/python" -m pytest -p no:cacheprovider -q -n 2 --dist worksteal -m 'not slow' "${tests[@]}")
    rm -rf "$work/env"
}

for name in "$@"; do
    started=$SECONDS constraint=()
    [ "$name" = lowest ] && version=3.11 constraint=(--constraint "$work/lowest.txt") || version="$name"
    if ! "python$version" -c '' 2>/dev/null; then
        echo "== $name: skipped, there is no python$version here"
        continue
    fi
    echo "== $name"
    check "python$version" "${constraint[@]}"
    echo "== $name: $((SECONDS - started)) s"
done
