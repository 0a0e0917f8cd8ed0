# make demo    the whole path on synthetic films, from a clean clone
# make test    the tests, from a clean clone; but for those that kill, wait and try for long:
# make test-long
# make lint    style, types, the import contract
# make bench   speed and memory as ratios with limits, into build/bench
# make gpu     everything that wants a GPU, with the Python that is there: DATA=folder OUT=folder MINUTES=30
#
# TORCH_INDEX=URL takes torch and torchvision from an index of your choice, such as a smaller CPU build.

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
DATA ?= data
OUT ?= benchmarks/results/gpu
MINUTES ?= 30
BIN := $(VENV)/bin
BINDINGS := build/trt-wheels

.PHONY: demo test test-long lint prose bench gpu clean

demo: $(VENV)/.all
	$(BIN)/edgecxr demo

test: $(VENV)/.dev $(BINDINGS)
	EDGECXR_TRT_WHEELS=$(abspath $(BINDINGS)) $(BIN)/python -m pytest -n auto -m "not long"

test-long: $(VENV)/.dev $(BINDINGS)
	EDGECXR_TRT_WHEELS=$(abspath $(BINDINGS)) $(BIN)/python -m pytest -n auto -m long

# The sentences that users read, for whoever has changed some.
prose: $(VENV)/.dev
	$(BIN)/python -m tests.prose

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.all
	$(BIN)/python benchmarks/startup.py --out build/bench/startup.json
	$(BIN)/python benchmarks/training_step.py --out build/bench/training_step.json
	$(BIN)/python benchmarks/beside.py --out build/bench/beside.json
	$(BIN)/python benchmarks/throughput.py --patch 32 --out build/bench/throughput.json
	$(BIN)/python benchmarks/cpu_latency.py --out build/bench/cpu_latency.json
	$(BIN)/python benchmarks/folder.py --films 300 --many 1000 --out build/bench/folder.json
	$(BIN)/python benchmarks/decode.py --films 60 --out build/bench/decode.json
	$(BIN)/python benchmarks/film.py --out build/bench/film.json
	$(BIN)/python benchmarks/dicom_results.py --out build/bench/dicom_results.json

gpu:
	$(PYTHON) benchmarks/gpu.py --data $(DATA) --out $(OUT) --minutes $(MINUTES)

# NVIDIA's own Python bindings, small files without TensorRT itself: a test compares our calls with them. What there is
# not for this Python and machine is left out, and its test skips.
$(BINDINGS): | $(VENV)/.dev
	mkdir -p $@
	for wheel in tensorrt-bindings==8.6.1 tensorrt-cu12-bindings==10.3.0 tensorrt-cu13-bindings==11.4.0.106 \
	    cuda-python==12.1.0 cuda-bindings==13.0.1 cuda-pathfinder; do \
	    $(BIN)/python -m pip download --quiet --no-deps --only-binary :all: --dest $@ $$wheel || true; done

clean:
	rm -rf $(VENV) build

$(VENV)/.all $(VENV)/.dev: $(VENV)/.%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet torch torchvision --index-url $(TORCH_INDEX))
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@
