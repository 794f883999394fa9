# make demo and make test set everything up automatically; Python 3.11 or later with pip is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Small products are quicker on one thread, and tests run in one process a core: neighbors in one process, where
# they share fixtures, until one process has nothing left to do. Bytecode is kept even where the environment says
# otherwise, because tests start many processes.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=

.PHONY: setup demo test test-slow lint types docs papers bench faults faults-short release-check versions-check lock clean

setup: $(VENV)/.ready

# What users install; the demo needs no more.
$(VENV)/.core: pyproject.toml hatch_build.py $(wildcard src/kappaflow/native/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "kappaflow needs Python 3.11 or later: make PYTHON=/path/to/python3.11 setup" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

# And what tests, docs and benchmarks need. pip reads dependency groups from 25.1 on.
$(VENV)/.ready: $(VENV)/.core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all]' --group dev --group docs --group bench
	@touch $@

demo: $(VENV)/.core
	$(BIN)/kappaflow fit magic --max-time-s 60 --out runs/magic
	$(BIN)/kappaflow sample runs/magic -n 1000 --out runs/samples.csv
	$(BIN)/kappaflow score runs/magic magic --out runs/scores.csv
	$(BIN)/kappaflow fit magic --where class=g --against class=h --max-time-s 40 --out runs/gamma
	@echo "Open runs/magic/report.html"

test: setup
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

test-slow: setup
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/pyright

docs: setup
	rm -rf docs/reference
	$(BIN)/python -m sphinx -M html docs docs/_build -W -q

# Needs LaTeX and rsvg-convert, which nothing else does: docs/build_papers.py names their packages.
papers:
	$(PYTHON) docs/build_papers.py

# PRESET=full measures the whole grid, for the page on couplings, in one or two hours.
PRESET ?= minutes
bench: setup
	$(BIN)/python -m benchmarks all --preset $(PRESET)
	@echo "Results are in benchmarks/results; $(BIN)/python -m benchmarks write-page makes the page of them"

# All faults of docs/reliability.md, in hours; an interrupted run is resumed. The short ones take minutes.
faults: setup
	$(ONE_THREAD) $(BIN)/python -m faults --long

faults-short: setup
	$(ONE_THREAD) $(BIN)/python -m faults

release-check:
	PYTHON=$(PYTHON) tools/release_check.sh

# The wheel in environments of their own: the lowest packages, and the newest on each Python of the classifiers.
versions-check:
	tools/versions_check.sh

# The exact versions that CI installs. Versions for one kind of processor (+cpu) are taken as those for any.
lock: setup
	@{ echo '# What CI installs, exactly: made by `make lock` in a new environment. A constraint for pip; users have ranges.'; \
		$(BIN)/pip freeze --all --exclude-editable | sed '/^pip==/d; s/+[a-z0-9.]*$$//'; } > .ci/constraints.txt
	@git diff --stat -- .ci/constraints.txt

clean:
	rm -rf $(VENV) docs/_build docs/reference runs
