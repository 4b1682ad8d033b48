# make help lists the commands. PROFILE: cpu (default), smoke (seconds) or gpu.
PROFILE ?= cpu
PY := .venv/bin/python
export OMP_WAIT_POLICY ?= PASSIVE
export PYTHONUTF8 := 1

# the first interpreter that is new enough; python3 goes first so that a chosen one wins
FIND := for p in "$$PYTHON" python3 python3.13 python3.12 python3.11 python3.14; do \
  [ -n "$$p" ] && "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done

.PHONY: help book run build test lab status accept diff pipeline doctor clean lint env
.DEFAULT_GOAL := help

help:   ## show this list
	@sed -n 's/^\([a-z]*\):[^#]*## */  make \1	/p' Makefile
book: env  ## run what changed, build the HTML, print where it lies
	@$(PY) -m mangalab.book.cli book --profile $(PROFILE)
run: env  ## run the notebooks only
	@$(PY) -m mangalab.book.cli run --profile $(PROFILE)
build: env  ## build the HTML only
	@$(PY) -m mangalab.book.cli build --profile $(PROFILE)
test: env  ## unit tests, smoke run of all notebooks, tests of the built pages
	@$(PY) -m pytest
lab: env  ## open the notebooks in JupyterLab
	@cd notebooks && MANGALAB_PROFILE=$(PROFILE) ../$(PY) -m jupyter lab
status: env  ## what is fresh, stale, failed or was never run
	@$(PY) -m mangalab.book.cli status --profile $(PROFILE)
accept: env  ## make the last runs the reference that later runs are compared with
	@$(PY) -m mangalab.book.cli accept --profile $(PROFILE)
diff: env  ## compare the last runs with the reference
	@$(PY) -m mangalab.book.cli diff --profile $(PROFILE)
pipeline: env  ## data to registered model in one go: hands-on project 8
	@$(PY) -m mangalab.book.cli pipeline
doctor: env  ## check packages, models, data, device, memory, disk, ports, browser
	@$(PY) -m mangalab.book.cli doctor --profile $(PROFILE)
lint: env  ## ruff and clean notebooks
	@$(PY) -m ruff check . && $(PY) tools/clean_notebooks.py --check notebooks
clean:  ## remove built pages and run records (keeps .venv, the model cache and the history of runs)
	@rm -rf _build; [ ! -d artifacts ] || find artifacts -mindepth 1 -maxdepth 1 ! -name history.jsonl -exec rm -rf {} +
env:  ## create or renew .venv from requirements.lock
	@python=$$($(FIND)); if [ -z "$$python" ]; then \
	  echo "make: Python 3.11 or newer was not found; install it, or name one: PYTHON=/path/to/python3.12 make book" >&2; exit 2; fi; \
	"$$python" tools/environment.py
