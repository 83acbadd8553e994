# `make demo`, `make reproduce` and `make test` do all the set-up; see `make help`.
# Options: PYTHON=python3.12  STACK=onedl  MMCV_CUDA=1  MAX_JOBS=1  TASK=panoptic  ARGS='-k windows'

TASK ?= semantic
PYTHON ?=
STACK ?=
MMCV_CUDA ?=
ARGS ?=
WORKERS ?= 2
VENV := .venv$(patsubst %,-%,$(filter-out stock,$(STACK)))

.DEFAULT_GOAL := help
.PHONY: help env demo page reproduce test campaign lint clean

help:
	@echo 'make demo     train, test and draw a small EoMT on synthetic scenes (TASK=$(TASK))'
	@echo 'make page     what the models of the demo do, in the browser; trains one (TASK=$(TASK))'
	@echo '              if there is none (ARGS="--port 9000")'
	@echo 'make reproduce'
	@echo '              two tables of the paper in miniature, 3 seeds, 40 to 60 minutes on'
	@echo '              2 cores (ARGS="--table annealing --seeds 0 1 2 3 4"); out of'
	@echo '              distribution with ARGS="--table ood"'
	@echo 'make test     the whole test suite in WORKERS=$(WORKERS) processes, about 3 GB each'
	@echo '              (ARGS="-k windows" is passed to pytest)'
	@echo 'make campaign trainings killed in every phase and resumed, about 20 minutes'
	@echo 'make env      only the environment in .venv; demo and test do it by themselves'
	@echo 'make lint     ruff: rules and format'
	@echo 'make clean    caches and build output; .venv* and work_dirs stay'
	@echo
	@echo 'Set-up options, each also for demo, reproduce and test:'
	@echo '  PYTHON=python3.12   the Python to use (3.10 to 3.12)'
	@echo '  MMCV_CUDA=1         compile the CUDA operators of mmcv (needs nvcc; EoMT needs none)'
	@echo '  MAX_JOBS=1          compilers at a time'
	@echo '  STACK=onedl         the maintained fork of OpenMMLab, in .venv-onedl'

# The first of these that runs and is supported; that of a finished .venv stays.
env:
	@for python in $(or $(PYTHON),$(VENV)/bin/python python3.11 python3.12 python3.10 \
	        python3 python); do \
	    if "$$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' \
	        2>/dev/null; \
	    then STACK='$(STACK)' MMCV_CUDA='$(MMCV_CUDA)' exec "$$python" -u tools/misc/setup_env.py; fi; \
	done; \
	echo 'error: $(or $(PYTHON),python3) is no Python 3.10 to 3.12, or does not run here:' \
	    'install one, or name it, as in' \
	    'make $(MAKECMDGOALS) PYTHON=/usr/bin/python3.11' >&2; exit 2

demo: env
	@$(VENV)/bin/python tools/demo.py --task $(TASK)

page: env
	@ls work_dirs/demo*/last_checkpoint >/dev/null 2>&1 || \
	    $(VENV)/bin/python tools/demo.py --task $(TASK)
	@$(VENV)/bin/python tools/serve.py --demo $(ARGS)

reproduce: env
	@$(VENV)/bin/python tools/reproduce.py $(ARGS)

test: env
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m 'not campaign' \
	    --numprocesses $(WORKERS) --dist loadfile $(ARGS)

campaign: env
	@$(VENV)/bin/python -m pytest -m campaign -s $(ARGS)

lint: env
	@$(VENV)/bin/python -m ruff check .
	@$(VENV)/bin/python -m ruff format --check .

clean:
	rm -rf build dist *.egg-info eomt_mm/.mim .pytest_cache .ruff_cache
	find . -path './.venv*' -prune -o -name __pycache__ -type d -exec rm -rf {} +
