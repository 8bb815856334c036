# make help lists the targets. Nothing here asks a question; all set-up is done by the targets themselves.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
COMPOSE := docker compose -f compose/cpu.yaml
VENV := build/venv
PYTHON ?= python3
NOTHING = { echo "ray-serve-cai: nothing is running; make up starts it" >&2; exit 69; }
export IMAGE MODEL MODEL_NAME WORKERS ENGINE ENGINE_ARGS PORT BIND HF_TOKEN HF_ENDPOINT HF_HUB_OFFLINE

.PHONY: help up down upgrade status logs image wheelhouse locks generate test test-full test-cuda release package bundle sizes bench lint venv

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{ printf "  make %-10s %s\n", $$1, $$2 }'
	@echo "  example: make up MODEL=demo WORKERS=2"

up: ## Build what is missing, start the cluster, wait until it answers (MODEL= WORKERS= ENGINE= PORT= IMAGE=)
	@compose/up.sh

down: ## Stop the cluster and remove its containers; models and token stay in volumes
	@$(COMPOSE) down --remove-orphans

upgrade: venv ## Bring the running cluster to another image, and back if that does not serve (IMAGE=)
	@unset MODEL MODEL_NAME WORKERS ENGINE ENGINE_ARGS PORT BIND; $(VENV)/bin/ray-serve-cai upgrade $(IMAGE) # compose/.env has them

status: ## Show phase, models and nodes
	@$(COMPOSE) ps --quiet head | grep -q . || $(NOTHING)
	@$(COMPOSE) exec -T head ray-serve-cai status

logs: ## Follow the logs of all nodes
	@$(COMPOSE) ps --all --quiet | grep -q . || $(NOTHING)
	@$(COMPOSE) logs --follow --tail 200

image: ## Build the CPU images, or others (TARGETS="vllm-cuda", "cai", "all")
	@images/build.sh --list $${TARGETS:-cpu} >/dev/null && compose/docker-engine.sh && images/base.sh && images/build.sh $${TARGETS:-cpu}

wheelhouse: ## Collect what images are built from, for a build without a network (TARGETS="vllm-cpu")
	@compose/docker-engine.sh && images/base.sh && $(PYTHON) -m images.wheelhouse $${TARGETS:-cpu}

locks: venv ## Resolve the images' dependency locks anew
	@PATH="$$PWD/$(VENV)/bin:$$PATH" $(PYTHON) -m images.generate --locks

generate: venv ## Write the files that follow from others (bake file, documentation tables)
	@$(PYTHON) -m images.generate && $(VENV)/bin/python docs/generate.py

venv: $(VENV)/.done ## Make the Python environment for tests and checks

$(VENV)/.done: pyproject.toml
	@echo "venv: installing the package and its tools into $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV) && $(VENV)/bin/pip install --quiet --editable '.[dev]' && touch $@

lint: venv ## Check style, types, shell scripts and Dockerfiles
	@tests/lint.sh $(VENV)

test: venv ## Unit tests and one smoke of each thing, on real containers
	@compose/docker-engine.sh && images/base.sh && images/build.sh cpu vllm-cpu-cai
	@$(VENV)/bin/python -m pytest tests -m "not full" --images cpu --images vllm-cpu-cai --cov=ray_serve_cai $(PYTEST)

test-full: venv ## Every acceptance test; resumes; writes build/acceptance.json (ISSUE=2 for one issue)
	@compose/docker-engine.sh && images/base.sh && images/build.sh cpu cpu-cai
	@$(VENV)/bin/python -m pytest tests --images cpu --images cpu-cai --acceptance build/acceptance.json $(if $(ISSUE),--issue $(ISSUE)) $(PYTEST)

test-cuda: venv ## Build the CUDA images and test what can be tested without a GPU (40 GB of disk; prunes Docker's build cache)
	@compose/docker-engine.sh && images/base.sh
	@for image in vllm-cuda sglang-cuda; do \
	  images/build.sh $$image $$image-cai && \
	  $(VENV)/bin/python -m pytest tests/images -k "cuda and not without_a_network" --images $$image --images $$image-cai $(PYTEST) && \
	  docker builder prune --force --filter type=regular >build/prune.log || exit; \
	done

release: venv ## Tag images by what is in them; their pages and bills of materials go to build/release (TARGETS="vllm-cpu")
	@mkdir -p build/release
	@images=$$(images/build.sh --list $${TARGETS:-cpu}) && for image in $$images; do \
	  $(VENV)/bin/python -m images.tagger ray-serve-cai:$$image --apply && \
	  $(VENV)/bin/python -m images.tagger ray-serve-cai:$$image --page build/release/$$image.md && \
	  docker run --rm --network none ray-serve-cai:$$image cat /opt/ray-serve-cai/sbom.cdx.json >build/release/$$image.cdx.json || exit; \
	done

package: venv ## Build the Python package, wheel and sdist, into build/dist, and check them as PyPI does
	@rm -rf build/dist && $(VENV)/bin/uv build --quiet --out-dir build/dist && $(VENV)/bin/twine check --strict build/dist/*

bundle: venv ## Write an archive with an image and all it takes to start it without a network (TARGETS="vllm-cpu")
	@images=$$(images/build.sh --list $${TARGETS:-vllm-cpu}) && for image in $$images; do $(VENV)/bin/python -m images.bundle ray-serve-cai:$$image || exit; done

sizes: venv ## Measure the images that are here, by layer and package; writes docs/images-sizes.*
	@$(VENV)/bin/python -m images.sizes && $(VENV)/bin/python docs/generate.py

bench: venv ## Measure beside the bare engine and ray.serve.llm; writes docs/benchmarks.* (BENCH="--rounds 5")
	@compose/docker-engine.sh && images/base.sh && images/build.sh
	@$(VENV)/bin/pip install --quiet --editable '.[bench]'
	@$(VENV)/bin/python -m tests.bench --json docs/benchmarks.json --out docs $(BENCH)
