# make demo   the whole way once, offline      make test        the quick tests (10 minutes)
# make check  lint and types                   make test-slow   the rest (40 minutes)

PYTHON ?= python3
VENV = .venv/bin
# MLX on Linux brings the reference BLAS; a shim sends it to numpy's, where a compiler is at hand.
PRELOAD = LD_PRELOAD="$$($(VENV)/python -m tools.blas_shim)"

.PHONY: demo test test-slow check device-check install clean

demo: install
	@$(PRELOAD) $(VENV)/golf demo $(ARGS)

test: install check
	$(PRELOAD) $(VENV)/python -m pytest -m "not slow" $(ARGS)

test-slow: install
	$(PRELOAD) $(VENV)/python -m pytest -m slow $(ARGS)

check: install
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy

install:
	@$(PYTHON) tools/bootstrap.py

clean:
	rm -rf .venv *.egg-info .mypy_cache .ruff_cache .pytest_cache
