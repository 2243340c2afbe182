PY    ?= python3
V     := .venv
STAMP := $(V)/.installed
DEMO  := $(V)/.installed-demo
# Python keeps compiled what it imports; pip would compile every module of every package, which takes it as long again.
PIP   := $(V)/bin/python -m pip install -q --no-compile -c constraints.txt
unexport PYTHONDONTWRITEBYTECODE
# One BLAS or torch thread per process: two cores are shared by app, worker and tests.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1

.PHONY: run test check bench unguard lock clean

run: $(DEMO)           ## the whole story on real histories, then a running server
	$(V)/bin/twinvault demo

test: $(STAMP)         ## every test that needs only Python
	$(V)/bin/python -m pytest -q -n 2 --dist loadfile -m "not slow and not needs_npm and not needs_apt"

check: $(STAMP)        ## format, lint, types, import contracts, guards
	$(V)/bin/ruff format --check .
	$(V)/bin/ruff check .
	$(V)/bin/mypy
	$(V)/bin/lint-imports --no-cache
	$(MAKE) unguard

bench: $(STAMP)         ## run every benchmark and write docs/benchmarks.md from its JSON
	$(V)/bin/python -m benchmarks

unguard: $(STAMP)      ## remove each guard in a copy of the tree; its test must then fail
	$(V)/bin/python -m tests.attacks.unguard

lock: $(STAMP)         ## write constraints.txt anew
	$(V)/bin/python -m pip install -q pip-tools
	echo "torch==2.13.0" > $(V)/pins.in
	$(V)/bin/pip-compile -q --allow-unsafe --extra test -c $(V)/pins.in --no-emit-index-url --no-emit-find-links \
	  --no-emit-trusted-host --no-header --no-annotate --strip-extras -o constraints.txt pyproject.toml
	sed -i -e 's/^torch==.*/torch==2.13.0/' -e '/^twinvault/d' -e '/^#/d' -e '/^$$/d' constraints.txt
	LC_ALL=C sort -t= -k1,1 -o constraints.txt constraints.txt

clean:
	rm -rf $(V) dist

$(DEMO): pyproject.toml constraints.txt | $(V)/bin/python
	$(PIP) -e ".[demo]"
	touch $@

$(STAMP): pyproject.toml constraints.txt | $(V)/bin/python
	$(PIP) -e ".[test]"
	touch $(DEMO) $@

$(V)/bin/python:
	$(PY) -m venv $(V)
