# Every command of this project; `make help` lists them.

PYTHON ?= python3
VENV ?= .venv
# Tiny models scale over runs, not over threads; the launcher sets each run's threads itself.
OMP_NUM_THREADS ?= 1
# Test processes side by side, a file to each; 0: all in this one (for a debugger).
WORKERS ?= 2
ARGS ?=
# Which build of torch must come out of setup, cpu or cuda (empty: whichever the index has), and an
# index to look at beside pip's own: its wheels say +cpu or +cu in their version, and so go first.
TORCH ?=
TORCH_INDEX ?=
export OMP_NUM_THREADS

BIN := $(VENV)/bin
# In the order collected: by number of tests, the files of few and long tests would come last.
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
STAMP := $(VENV)/.setup-stamp
# Packages show their progress on a terminal and stay quiet in a log.
PIP_QUIET := $(if $(MAKE_TERMOUT),,--quiet)
CACHES := .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
SYSTEM_PACKAGES := chromium ffmpeg slurm-wlm munge iproute2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help torch-choice setup setup-system demo report studies law tasks emergence emergence-switch ladder test test-fast test-dist \
  test-slurm gpu-check bench bench-data bench-models bench-fit bench-runs plan check format clean clean-venv clean-data

help: ## List the targets
	@echo "kinescale: scaling laws for video diffusion transformers"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) \
	  | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'
	@echo
	@echo "Variables: PYTHON=$(PYTHON) VENV=$(VENV) OMP_NUM_THREADS=$(OMP_NUM_THREADS) WORKERS=$(WORKERS)"
	@echo '  TORCH=cpu or cuda: the build of torch that setup must bring; TORCH_INDEX=URL: where to look, too'
	@echo 'and ARGS for the programs behind demo, report and the tests: make test ARGS="-k fit -x"'

torch-choice:
	@case "$(TORCH)" in ""|cpu|cuda) ;; \
	  *) echo "TORCH=$(TORCH): must be cpu or cuda, or left out. Use TORCH=cpu." >&2; exit 1;; esac

setup: torch-choice $(STAMP) ## Create the environment in VENV and install the pinned packages (no root needed)
	@test -z "$(TORCH)" || $(BIN)/python -c 'import sys, torch; \
	  found = "cuda" if torch.version.cuda else "cpu"; \
	  sys.exit(found != "$(TORCH)" and f"TORCH=$(TORCH): {torch.__version__} is a build for {found}. " \
	  "Use make clean-venv, then make setup TORCH=$(TORCH) TORCH_INDEX=URL of an index that has it.")'
	@printf '%s\n' '' 'kinescale is ready. Activate its environment, then ask for the commands:' '' \
	  '  . $(VENV)/bin/activate' '  kinescale' '' 'Or begin at once: make demo'

# Redone when the pins or the project change; the stamp comes last, so a broken setup starts again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
	  f"PYTHON=$(PYTHON): is Python {v[0]}.{v[1]} but must be 3.11 or later. Use PYTHON=python3.11.")'
	@test -x $(BIN)/python || { echo "setup: creating $(VENV)"; $(PYTHON) -m venv $(VENV); } || { \
	  echo "setup: $(PYTHON) cannot make environments. On Debian: apt-get install python3-venv" >&2; \
	  rm -rf $(VENV); exit 1; }
	@echo "setup: installing the packages of constraints.txt (2.3 GB with a CPU wheel of torch," \
	  "6.3 GB with the CUDA build that most indexes have; minutes)"
	@$(BIN)/python -m pip install --no-input --disable-pip-version-check $(PIP_QUIET) \
	  $(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)') --constraint constraints.txt --editable '.[dev]'
	@touch $@
	@echo "setup: done, $$($(BIN)/python -c 'import torch; print("torch", torch.__version__, \
	  "with CUDA" if torch.cuda.is_available() else "on CPU")')"

setup-system: ## Install Chromium, ffmpeg and SLURM for the page and queue tests (root on Debian)
	@if command -v chromium >/dev/null && command -v ffmpeg >/dev/null && \
	    command -v slurmctld >/dev/null && command -v munged >/dev/null && \
	    command -v ip >/dev/null; then \
	  echo "setup-system: chromium, ffmpeg and SLURM are there already"; \
	elif ! command -v apt-get >/dev/null; then \
	  echo "setup-system: needs Debian's apt-get. Install by hand: $(SYSTEM_PACKAGES)" >&2; exit 1; \
	elif [ "$$(id -u)" != 0 ]; then \
	  echo "setup-system: needs root. Run: sudo make setup-system" >&2; exit 1; \
	else \
	  echo "setup-system: installing $(SYSTEM_PACKAGES)"; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update -qq && \
	  apt-get install -qq -y --no-install-recommends $(SYSTEM_PACKAGES) >/dev/null && \
	  echo "setup-system: done"; \
	fi

demo: $(STAMP) ## From real clips to a fitted law in runs/demo (half an hour; safe to interrupt)
	@$(BIN)/kinescale demo $(ARGS)

report: $(STAMP) ## Write the report of runs/demo again
	@$(BIN)/kinescale report runs/demo $(ARGS)

studies: $(STAMP) ## Two comparisons on simulated worlds: framing, captions (an hour and a half; resumable)
	@$(BIN)/kinescale studies framing captions $(ARGS)

law: $(STAMP) ## The CPU law: render, encode, train, fit (hours on two cores, in sittings: ARGS=up_to=1.7e12; resumable)
	@$(BIN)/kinescale worlds root=datasets/law num_train_clips=14000 num_val_clips=400 seed=7 \
	  worlds.rooms=0.8 worlds.physics=0.2 worlds.craft=0 worlds.doom=0
	@$(BIN)/kinescale encode data.root=datasets/law/video out=datasets/law/latents \
	  experiment=cpu_demo text.max_tokens=48
	@$(BIN)/kinescale run study=cpu_law $(ARGS)
	@$(BIN)/kinescale run study=cpu_lr_transfer
	@$(BIN)/kinescale run study=cpu_seeds

TASK_WORLDS := tiny.strip=1 tiny.rotor=1 tiny.rotor_damped=1 tiny.uniform=0 tiny.collision=0 tiny.parabola=0 \
  tiny.panorama=0 tiny.turntable=0 tiny.canvas=0 tiny.tiles=0 tiny.brittle=0
tasks: $(STAMP) ## One run of all tasks on tiny worlds, and its page docs/studies/tasks (half an hour of a core; resumable)
	@$(BIN)/kinescale worlds root=datasets/tasks preset=tiny num_train_clips=12000 num_val_clips=192 $(TASK_WORLDS)
	@$(BIN)/kinescale encode experiment=tiny_tasks data.root=datasets/tasks/video out=datasets/tasks/latents
	@$(BIN)/kinescale worlds root=datasets/tasks_half preset=tiny num_train_clips=1200 num_val_clips=48 seed=1 $(TASK_WORLDS)
	@$(BIN)/kinescale reshape root=datasets/tasks_half/video out=datasets/tasks_half/half scale=0.5 crf=0
	@$(BIN)/kinescale encode experiment=tiny_tasks data.root=datasets/tasks_half/half out=datasets/tasks_half/latents
	@told="$$($(BIN)/kinescale train experiment=tiny_tasks horizon.flops=1e13 $(ARGS))" && \
	  $(BIN)/kinescale tasks run="$$(echo "$$told" | sed -n 's/^run folder: //p')" out=docs/studies/tasks

# One tiny world alone, lawful and without any law, as latents of pixels: worlds that are not named keep their share.
TWINS := preset=tiny num_train_clips=24000 num_val_clips=64 tiny.strip=0 tiny.uniform=0 tiny.collision=0 \
  tiny.parabola=0 tiny.panorama=0 tiny.turntable=0 tiny.canvas=0 tiny.tiles=0 tiny.rotor=0 tiny.rotor_damped=0 \
  tiny.brittle=0
PIXELS := codec=pixels text.kind=bytes text.width=32 model.text_width=32
define twins
	@$(BIN)/kinescale worlds root=datasets/$(1)_lawful $(TWINS) tiny.$(1)=1
	@$(BIN)/kinescale encode $(PIXELS) data.root=datasets/$(1)_lawful/video out=datasets/$(1)_lawful/latents
	@$(BIN)/kinescale worlds root=datasets/$(1)_lawless lawless=all $(TWINS) tiny.$(1)=1
	@$(BIN)/kinescale encode $(PIXELS) data.root=datasets/$(1)_lawless/video out=datasets/$(1)_lawless/latents
endef

emergence: $(STAMP) ## Abilities against compute beside lawless twins: first sitting (an hour of two cores; resumable)
	$(call twins,strip)
	@$(BIN)/kinescale run study=cpu_emergence $(ARGS)
	@$(BIN)/kinescale archive runs/cpu_emergence docs/studies/cpu_emergence

ladder: $(STAMP) ## What more compute looks like on one tiny world, with its numbers (half an hour of two cores; resumable)
	$(call twins,strip)
	@$(BIN)/kinescale run study=cpu_strip_ladder $(ARGS)
	@$(BIN)/kinescale archive runs/cpu_strip_ladder docs/studies/cpu_strip_ladder

emergence-switch: $(STAMP) ## The same of a law that no covariance holds (half an hour of two cores; resumable)
	$(call twins,switch)
	@$(BIN)/kinescale run study=cpu_emergence_switch $(ARGS)
	@$(BIN)/kinescale archive runs/cpu_emergence_switch docs/studies/cpu_emergence_switch

test: $(STAMP) ## Run the tests but the slow ones (what is missing skips its tests, with the reason)
	@$(PYTEST) -m "not slow" $(ARGS)

test-fast: $(STAMP) ## After each change: every room, without what is heavy or needs processes or a browser (two minutes)
	@$(PYTEST) -m "not (slow or dist or slurm or gpu or page or heavy)" $(ARGS)

test-dist: $(STAMP) ## Every layout and fault with real processes; prints the tables (half an hour)
	@$(BIN)/python -m pytest -m dist $(ARGS)

test-slurm: setup-system $(STAMP) ## A throw-away SLURM cluster of 4 nodes (root): queue, faults, table (8 minutes)
	@$(PYTEST) -m slurm $(ARGS)

gpu-check: $(STAMP) ## On a machine with a GPU: layouts, bf16, kernels, speed as a table (ten minutes)
	@$(BIN)/kinescale gpu-check $(ARGS)

bench: $(STAMP) ## Print the ratios that decisions rest on (run it on an idle machine)
	@$(BIN)/python -m benchmarks.cpu_ops
	@$(BIN)/python -m benchmarks.train_step
	@$(BIN)/python -m benchmarks.page_speed
	@$(BIN)/python -m benchmarks.status_speed

bench-data: $(STAMP) ## Decoders, packing, loading, buckets, ingest against what others do (half an hour)
	@$(BIN)/python -m benchmarks.decode --update docs/decode.md
	@$(BIN)/python -m benchmarks.packing
	@$(BIN)/python -m benchmarks.loading $(ARGS)
	@$(BIN)/python -m benchmarks.bucketing
	@$(BIN)/python -m benchmarks.ingest

bench-models: $(STAMP) ## Quality of the compression network and the captioner on held-out clips
	@$(BIN)/python -m benchmarks.vae
	@$(BIN)/python -m benchmarks.captioner

bench-fit: $(STAMP) ## The fitter against published fits (needs the reference tables beside the checkout)
	@$(BIN)/python -m benchmarks.fit $(ARGS)

bench-runs: $(STAMP) ## Ways to share a machine among tiny runs; muP's coordinate check (run it idle)
	@$(BIN)/python -m benchmarks.many_runs $(ARGS)
	@$(BIN)/python -m benchmarks.many_runs --steps-alone
	@$(BIN)/python -m benchmarks.study_rate
	@$(BIN)/python -m benchmarks.coordinate_check --out runs/coordinate_check

plan: $(STAMP) ## Predicted against real memory and published speed; a search for 30B on 1,024 GPUs
	@$(BIN)/python -m benchmarks.plan_memory
	@$(BIN)/python -m benchmarks.plan_speed
	@$(BIN)/python -m benchmarks.plan_stacks
	@$(BIN)/kinescale plan --search gpus=1024 model=w6144d48 horizon.tokens=1e12
	@$(BIN)/kinescale economics law=docs/studies/demo/law.json 'machines=[cpu2,h100]'

check: $(STAMP) ## Lint, format, types and the contracts between the rooms
	@echo "check: ruff"
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(BIN)/ruff format --quiet --check .
	@echo "check: mypy"
	@$(BIN)/mypy
	@echo "check: import-linter"
	@$(BIN)/lint-imports --no-logo

format: $(STAMP) ## Format the code and sort the imports
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

clean: ## Remove the tools' caches
	rm -rf $(CACHES)
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

clean-venv: clean ## Remove the caches and the environment
	@test ! -e $(VENV) || test -f $(VENV)/pyvenv.cfg || { \
	  echo "VENV=$(VENV): must be a Python environment; nothing was removed." >&2; exit 1; }
	rm -rf $(VENV) kinescale.egg-info

clean-data: ## Remove all runs and data sets (asks for SURE=yes)
	@du -sh runs datasets 2>/dev/null || true
	@test "$(SURE)" = yes || { \
	  echo "clean-data: would remove the folders above. Run: make clean-data SURE=yes" >&2; exit 1; }
	rm -rf runs datasets
