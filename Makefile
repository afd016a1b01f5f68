# make help         what there is
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
DEMO := data/lyrics_demo
# Without compiling what is never imported, pip takes two thirds of the time. uv takes half of that, but does not read
# pip's settings (a mirror, say): make INSTALL="uv pip install --quiet --python .venv"
INSTALL ?= $(PY) -m pip install --quiet --no-compile --disable-pip-version-check
# every version is that of requirements.lock, so that a new release of a package can't break a new machine
LOCKED := $(INSTALL) --constraint requirements.lock
ALL_REQUIREMENTS := -r requirements.txt -r requirements-more.txt -r requirements-web.txt -r requirements-dev.txt

.PHONY: help setup demo web test test-fast lint lock clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)

# A stamp per set of packages, so that what is installed is not installed again until its list changes.
$(VENV)/installed-demo: requirements.txt requirements-demo.txt requirements.lock | $(PY)
	@echo "== $$(date +%T) installing into $(VENV): a minute or two"
	@$(LOCKED) -r requirements.txt
	@$(LOCKED) --no-deps -r requirements-demo.txt
	@touch $@

$(VENV)/installed-%: requirements-%.txt $(VENV)/installed-demo
	@echo "== $$(date +%T) installing requirements-$*.txt"
	@$(LOCKED) -r $<
	@touch $@

setup: $(VENV)/installed-demo $(VENV)/installed-more  ## a virtual environment in .venv with all that training can use

demo: $(VENV)/installed-demo  ## fine-tune a real pretrained model on the shipped songs and print rhymed bars
	@echo "== $$(date +%T) preparing the songs in data/lyrics/demo"
	@$(PY) data/lyrics/data_generator/preprocess.py --data_dir=data/lyrics/demo --save_dir=$(DEMO)
	@$(PY) data/lyrics/prepare.py --input=$(DEMO)/data.json --tokenizer=smollm2 --out_dir=$(DEMO) --val_share=0.15
	@echo "== $$(date +%T) fine-tuning SmolLM2 on them"
	@$(PY) train.py config/finetune_lyrics_demo.py
	@echo "== $$(date +%T) sampling: two continuations of demo.txt, in couplets that rhyme"
	@$(PY) sample.py --out_dir=out-lyrics-demo --start=FILE:demo.txt --num_samples=2 --max_new_tokens=170 \
		--rhyme=AABB $$(test -t 1 && echo --show_rhymes)
	@echo "== $$(date +%T) done. Next, after 'source $(VENV)/bin/activate':"
	@echo "  make web                                                     write with it in the browser"
	@echo "  python sample.py --out_dir=out-lyrics-demo --interactive --rhyme=ABAB      write line by line"
	@echo "  python data/lyrics/data_generator/crawl.py --help            your own lyrics (README: Your own lyrics)"

# the model that make demo trains, if it is there, or else the pretrained one as it comes. OPTIONS="--port=9000", and so on
web: $(VENV)/installed-web  ## a page to write verses with, on 127.0.0.1
	@$(PY) serve.py $$(test -e out-lyrics-demo/best && echo --out_dir=out-lyrics-demo || echo --init_from=smollm2) $(OPTIONS)

# one thread per test process, and one process per core
test: $(VENV)/installed-more $(VENV)/installed-web $(VENV)/installed-dev  ## run every test, on every core
	@OMP_NUM_THREADS=1 $(PY) -m pytest -q -n auto

test-fast: $(VENV)/installed-more $(VENV)/installed-web $(VENV)/installed-dev  ## run the quick tests, in a minute
	@OMP_NUM_THREADS=1 $(PY) -m pytest -q -n auto -m "not slow"

lint: | $(PY)  ## check the style
	@test -x $(VENV)/bin/ruff || $(LOCKED) ruff
	@$(PY) -m ruff check .

# in an environment of its own, so that packages which happen to be in .venv stay out
lock:  ## write requirements.lock: the newest versions that requirements*.txt allow
	@$(PYTHON) -m venv --clear $(VENV)-lock
	@$(VENV)-lock/bin/python -m pip install --quiet $(ALL_REQUIREMENTS)
	@$(VENV)-lock/bin/python -m pip install --quiet --no-deps -r requirements-demo.txt
	@(echo "# every package, direct or not, at the version that was tested: written by make lock" && \
		$(VENV)-lock/bin/python -m pip freeze | sed 's/+cpu$$//') > requirements.lock
	@rm -rf $(VENV)-lock

clean:  ## remove what the demo made; the environment stays
	rm -rf $(DEMO) out-lyrics-demo
