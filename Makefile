# The same commands without make stand in the README.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

.PHONY: demo lab test lint book clean

demo: $(VENV)/.notebooks
	$(BIN)/papermill --log-output --no-progress-bar notebooks/train.ipynb outputs/demo.ipynb -p dataset demo -p bits 64
	$(BIN)/jupyter trust outputs/demo.ipynb
	$(BIN)/python -m wsch_core.experiments.report --notebook outputs/demo.ipynb

# JupyterLab with working copies of the notebooks, in outputs/notebooks/.
lab: $(VENV)/.notebooks
	$(BIN)/python -m wsch_core.show.lab

# Two at a time with a thread each: many tests wait for kernels and browsers.
test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

book: $(VENV)/.book
	$(BIN)/python book/build.py

$(VENV)/.notebooks: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[notebooks]'
	touch $@

$(VENV)/.book: $(VENV)/.notebooks
	$(INSTALL) '.[notebooks,corpus,book]'
	touch $@

$(VENV)/.test: $(VENV)/.notebooks
	$(INSTALL) '.[notebooks,videos,corpus,book,test]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
