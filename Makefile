# make help         what there is
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
DEMO := data/lyrics_demo

.PHONY: help setup demo web test lint clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(VENV)/installed  ## a virtual environment in .venv with everything installed

# a stamp, so that what is installed is not installed again until a requirements file changes
$(VENV)/installed: requirements.txt requirements-demo.txt requirements-dev.txt
	@echo "== $$(date +%T) installing into $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-demo.txt
	@touch $@

demo: setup  ## fine-tune a real pretrained model on the shipped songs and print fresh bars
	@echo "== $$(date +%T) preparing the songs in data/lyrics/demo"
	@$(PY) data/lyrics/data_generator/preprocess.py --data_dir=data/lyrics/demo --save_dir=$(DEMO)
	@$(PY) data/lyrics/prepare.py --input=$(DEMO)/data.json --tokenizer=smollm2 --out_dir=$(DEMO) --val_share=0.15
	@echo "== $$(date +%T) fine-tuning SmolLM2 on them"
	@$(PY) train.py config/finetune_lyrics_demo.py
	@echo "== $$(date +%T) sampling: two continuations of demo.txt"
	@$(PY) sample.py --out_dir=out-lyrics-demo --start=FILE:demo.txt --num_samples=2 --max_new_tokens=200

# the model that make demo trains, if it is there, or else the pretrained one as it comes. OPTIONS="--port=9000", and so on
web: setup $(VENV)/installed-web  ## a page to write verses with, on 127.0.0.1
	@$(PY) serve.py $$(test -e out-lyrics-demo/best && echo --out_dir=out-lyrics-demo || echo --init_from=smollm2) $(OPTIONS)

$(VENV)/installed-web: requirements-web.txt $(VENV)/installed
	@echo "== $$(date +%T) installing the web server"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-web.txt
	@touch $@

test: setup $(VENV)/installed-web  ## run every test, on every core
	@OMP_NUM_THREADS=1 $(PY) -m pytest -q -n auto

lint: setup  ## check the style
	@$(PY) -m ruff check .

clean:  ## remove what the demo made; the environment stays
	rm -rf $(DEMO) out-lyrics-demo
