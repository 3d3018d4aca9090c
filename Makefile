# Two commands: `make demo` shows what this is, `make test` checks everything. Both make .venv when it is not there.
# `make test SLOW=1` also runs the cells flagged `slow` where there is no GPU: longer training runs of the solutions.
PYTHON ?= python3
BIN := .venv/bin
SPEC := settings.ini setup.py pyproject.toml

# Python compiles what is imported and keeps it. Containers often switch that off, and then every process compiles all of it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test docs readme image save clean

demo: .venv/installed
	$(BIN)/segnb demo

test: .venv/installed-dev
	$(BIN)/python tools/browser.py
	$(BIN)/python tools/check.py

docs: .venv/installed-dev
	$(BIN)/python tools/docs.py

# make save NB=nbs/02_unet.ipynb: export a notebook, run it, keep its outputs
save: .venv/installed-dev
	$(BIN)/nbdev-export
	$(BIN)/nbdev-test $(NB) --save --flags slow
	$(BIN)/python tools/tidy.py $(NB)
	$(BIN)/nbdev-clean --fname $(NB)

readme: .venv/installed-dev
	$(BIN)/python tools/readme.py

# the picture in README is what `make demo` leaves
image: demo
	$(BIN)/python -c "from PIL import Image; Image.open('demo/results.png').convert('RGB').save('nbs/images/demo_results.jpg', quality=88)"

# what fails half-way leaves nothing that passes for an environment
.venv/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3,11) and f'Python 3.11 or later is needed, this is {sys.version.split()[0]}: make demo PYTHON=python3.12')"
	$(PYTHON) -m venv --clear .venv || (rm -rf .venv; exit 1)

.venv/installed: .venv/bin/python $(SPEC)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -e .
	touch $@

.venv/installed-dev: .venv/bin/python $(SPEC)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -e '.[dev]'
	touch $@ .venv/installed

clean:
	rm -rf .venv _docs _nbs _proc demo build *.egg-info
