# make demo   the whole way once, offline      make test        the quick tests (10 minutes)
# make check  lint and types                   make test-slow   the rest (40 minutes)

PYTHON ?= python3
VENV = .venv/bin
# MLX on Linux brings the reference BLAS; a shim sends it to numpy's, where a compiler is at hand.
PRELOAD = LD_PRELOAD="$$($(VENV)/python -m tools.blas_shim) $$LD_PRELOAD"
# Test shapes are tiny: threads that wait for each other cost more than they give.
ONE_THREAD = OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
# Threads that wait asleep leave a busy machine's other work alone.
ASLEEP = OMP_WAIT_POLICY=PASSIVE OPENBLAS_NUM_THREADS=1

.PHONY: demo test test-slow bench bench-quant bench-quant-train check device-check install clean

demo: install
	@$(ASLEEP) $(PRELOAD) $(VENV)/golf demo $(ARGS)

test: install check
	@$(ONE_THREAD) $(PRELOAD) $(VENV)/python -m pytest -m "not slow" -n 2 --dist worksteal $(ARGS)

test-slow: install
	@$(ONE_THREAD) $(PRELOAD) $(VENV)/python -m pytest -m slow $(ARGS)

# The ladder as measured on this device, to paste into docs.
device-check: install
	@$(PRELOAD) $(VENV)/python -m tests.parity.report --long

# The suite of the device at hand; elsewhere than on a Mac MLX beside it, then what scores. Others:
# golf bench --suite quant, load.
bench: install
	@$(VENV)/golf bench --suite auto $(ARGS)
	@[ "$$(uname)" = Darwin ] || $(PRELOAD) $(VENV)/golf bench --suite mlx $(ARGS)
	@$(ONE_THREAD) $(PRELOAD) $(VENV)/golf bench --suite score $(ARGS)

# Models for quantizers, three seeds of them (hours on two cores; ARGS=--short: minutes), and what
# quantizers make of them and of Gaussian matrices.
bench-quant-train: install
	@$(VENV)/python -m tests.quant_models $(ARGS)

bench-quant: install
	@$(ONE_THREAD) $(VENV)/python -m tests.coders
	@$(ONE_THREAD) $(VENV)/python -m tests.quantizers --size 384
	@$(VENV)/python -m tests.bench_quant runs/quant/*-seed* $(ARGS)

check: install
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy

install:
	@$(PYTHON) tools/bootstrap.py

clean:
	rm -rf .venv *.egg-info .mypy_cache .ruff_cache .pytest_cache
