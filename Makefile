# What a person types; each target is `python3 dev.py TARGET`, which installs what it needs into .venv.
# More arguments: make test ARGS="-k dedup -x"
PYTHON ?= python3
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench soak generate clean

help:
	@$(PYTHON) dev.py --help

demo test lint bench soak generate clean:
	@$(PYTHON) dev.py $@ $(ARGS)
