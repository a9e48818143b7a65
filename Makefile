# Everything runs from a fresh clone: each target makes the virtual environment it needs. PYTHON names the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := dist/hello-service.oci.tar
# Exits 0 where a sandbox can be made, whatever becomes of ours.
SANDBOX := { bwrap --unshare-all --ro-bind / / --dev /dev --proc /proc true || \
    unshare --user --map-root-user --net --pid --fork --mount-proc true; } >/dev/null 2>&1
TEST_DEPS := docker-registry skopeo umoci podman buildah runc bubblewrap qemu-user uidmap gpgv pigz \
    golang-github-opencontainers-image-spec-dev
BENCH_DEPS := buildah mmdebstrap docker-registry skopeo pigz aria2 curl
PYTEST_ARGS ?=
BENCH_ARGS ?=

.PHONY: help demo test test-deps lint bench bench-push bench-cache bench-deps clean
.DELETE_ON_ERROR:

help:
	@echo "make demo       build an image from examples/hello-service, start it and ask it, without docker"
	@echo "make test       run the tests (PYTEST_ARGS=... are passed on)"
	@echo "make test-deps  install the programs that judge our images, from Debian (as root or with sudo)"
	@echo "make lint       ruff and mypy"
	@echo "make bench      compare the speed with that of others (BENCH_ARGS=--write keeps the result)"
	@echo "make bench-push compare the speed of pushing 500 MB with skopeo's"
	@echo "make bench-cache measure an empty runner with a warm cache registry"
	@echo "make bench-deps install what the comparison needs, from Debian (as root or with sudo)"
	@echo "make clean      remove what was made here"

$(VENV)/.made: scripts/venv.sh
	sh scripts/venv.sh $(VENV) $(PYTHON)
	@touch $@

$(VENV)/.run: pyproject.toml $(VENV)/.made
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.run
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

demo: $(VENV)/.run
	@$(BIN)/pesto-repro lock --check examples/hello-service || $(BIN)/pesto-repro lock examples/hello-service
	@mkdir -p dist
	@reference=$$($(BIN)/pesto-repro build examples/hello-service -o $(DEMO)) && \
	image=$${reference%@*} && \
	printf '%s\n' \
	    "" \
	    "Built $$reference" \
	    "" \
	    "Its service, started here for one request, {\"text\": \"world\"}, answers:" && \
	{ printf '{"text": "world"}' | $(BIN)/pesto-repro run $(DEMO) --process - || \
	    { ! $(SANDBOX) && echo "nothing here, as the error above says. The image is built all the same."; }; } && \
	printf '%s\n' \
	    "" \
	    "Test it:   $(BIN)/pesto-repro test examples/hello-service" \
	    "Run it:    $(BIN)/pesto-repro run $(DEMO)" \
	    "Ask it:    curl -H 'Content-Type: application/json' -d '{\"text\": \"world\"}' http://localhost:8080/api/v1/process" \
	    "" \
	    "With an engine:" \
	    "Load it:   podman load -i $(DEMO)        (or: docker load -i $(DEMO))" \
	    "Run it:    podman run --rm -p 8080:8080 $$image        (or: docker run ...)"

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist loadfile $(PYTEST_ARGS)

test-deps: PACKAGES := $(TEST_DEPS)
bench-deps: PACKAGES := $(BENCH_DEPS)
test-deps bench-deps:
	@set -e; \
	if [ "$$(id -u)" = 0 ]; then root=; else root=sudo; fi; \
	missing=; \
	for package in $(PACKAGES); do \
	    dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
	    $$root apt-get update -q; \
	    $$root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; \
	fi

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/bench.py $(BENCH_ARGS)

bench-push: $(VENV)/.dev
	$(BIN)/python benchmarks/push.py $(BENCH_ARGS)

bench-cache: $(VENV)/.dev
	$(BIN)/python benchmarks/cache.py $(BENCH_ARGS)

clean:
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
