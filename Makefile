# Everything lives in .venv and build; `make sample` and `make test` set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(wildcard cmake/* csrc/*/* csrc/*/*/*)
CPP := $(wildcard csrc/*/*.h csrc/*/*.cpp csrc/*/*/*.h csrc/*/*/*.cpp csrc/*/*.cu csrc/*/*.cuh tests/*/*/*.h tests/*/*/*.cpp)
PYTHON_CODE := pysdk export tests benchmarks tools

# nvcc of pip, in a folder of its own: torch for CUDA brings some of these packages in other versions
NVCC := build/cuda/nvidia/cu13/bin/nvcc
CUDA_PACKAGES := nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 \
  nvidia-cuda-cccl==13.0.85
ifneq ($(wildcard $(NVCC)),)
export CUDACXX ?= $(CURDIR)/$(NVCC)
endif

TENSORRT_BINDINGS := 10.13.3.9 10.16.1.11 11.0.0.114 11.4.0.106

.PHONY: sample test pytest quick fuzz test-isas fresh-machine lint stubs sanitize benchmark gpu-install gpu-test gpu-benchmark cuda-compiler tensorrt-install tensorrt-test sanitize-engine wheel clean

sample: engine.plan
	mkdir -p out
	$(BIN)/pysdk sample engine.plan -n 64 --seed 0 -o out/garments.png

engine.plan: $(VENV)/export.stamp $(wildcard export/*.py export/*/*.py export/*/*/*.py export/*/*/*/*.py) $(wildcard models/fashion-mnist/*)
	$(BIN)/python export/build_engine.py -o $@ -v

test: lint pytest

# tests of one file stay on one worker, which makes a file's fixtures once
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile
pytest: $(VENV)/test.stamp
	$(PYTEST)

# the loop of a contributor: all but the tests marked slow
quick: lint
	$(PYTEST) -m "not slow"

# programs of the engine and ONNX files changed at random, FUZZ_SECONDS of each; FUZZ_SEED=1 tries others
FUZZ_SECONDS ?= 600
FUZZ_SEED ?= 0
fuzz: $(VENV)/test.stamp
	PYTHONPATH=tests $(BIN)/python -m kit.engine.fuzz --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)
	PYTHONPATH=tests $(BIN)/python -m kit.attacks.mutants --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

# the native tests and 64 images of the shipped plan under every instruction set that this processor has
ISAS := baseline avx2 avx512
test-isas: $(VENV)/test.stamp engine.plan
	mkdir -p build/isas
	for isa in $(ISAS); do export PYSDK_ISA=$$isa; \
	  $(BIN)/python -c 'from pysdk import _native; print(_native.isa())' 2> /dev/null || { echo "no $$isa here"; continue; }; \
	  $(BIN)/python -m pytest -q tests/native tests/whole/test_bit_identity.py && \
	  $(BIN)/pysdk sample engine.plan -n 64 --seed 0 -o build/isas/$$isa.png && \
	  cmp build/isas/baseline.png build/isas/$$isa.png || exit 1; done
	sha256sum build/isas/*.png

# both commands in a Debian that has nothing but Python, a compiler, make and git; needs root and debootstrap
fresh-machine:
	tools/fresh_machine.sh

# a CUDA compiler for a machine without one, 102 MB to download; without it `make test` does not compile the CUDA part
cuda-compiler: $(NVCC)

$(NVCC): $(VENV)/build.stamp
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --target build/cuda $(CUDA_PACKAGES)
	touch $@

# TensorRT-RTX, 95 MB to download, and the Python modules of TensorRT, 1 MB each, without their libraries; `make test`
# skips what needs one that is missing
tensorrt-install: $(VENV)/test.stamp
	PYSDK_TESTING=ON $(PIP) --no-build-isolation -e '.[test,tensorrt]'
	for version in $(TENSORRT_BINDINGS); do \
	  $(BIN)/python -m pip --disable-pip-version-check download --quiet --no-deps --only-binary=:all: \
	    -d build/tensorrt-bindings tensorrt-cu13-bindings==$$version \
	  || echo "without the bindings of TensorRT $$version, which is not tested"; done

tensorrt-test: tensorrt-install
	$(BIN)/python -m pytest tests/export/lowering/test_precision.py tests/export/engines/tensorrt tests/export/importers/trtexec \
	  tests/engines/tensorrt

lint: $(VENV)/test.stamp
	$(BIN)/ruff check $(PYTHON_CODE)
	$(BIN)/ruff format --check $(PYTHON_CODE)
	$(BIN)/mypy
	$(BIN)/python tools/check_rooms.py
	$(BIN)/python tools/check_includes.py
	$(BIN)/clang-format --dry-run --Werror $(CPP)
	$(BIN)/python tools/generate_stubs.py --check

stubs: $(VENV)/test.stamp
	$(BIN)/python tools/generate_stubs.py

# the native tests on a build that stops at the first out-of-bounds access, undefined behaviour or data race
sanitize: $(VENV)/test.stamp
	tools/sanitize.sh $(BIN)/python address,undefined
	tools/sanitize.sh $(BIN)/python thread

# the part of it that CI has time for: the engine, which reads programs of strangers, and its fuzzer
sanitize-engine: $(VENV)/test.stamp
	FUZZ_SECONDS=30 tools/sanitize.sh $(BIN)/python address,undefined tests/native/engine

benchmark: $(VENV)/test.stamp engine.plan
	$(BIN)/python -m benchmarks.report

# On a machine with an NVIDIA GPU, in the environment of $(PYTHON), whose torch and CUDA compiler are used; pip fetches
# what pyproject.toml lists under dependencies and is missing there. docs/gpu.md says what else it needs.
gpu-install:
	PYSDK_CUDA=ON PYSDK_TESTING=ON CUDAARCHS=$${CUDAARCHS:-native} $(PYTHON) -m pip --disable-pip-version-check install --quiet \
	  --no-build-isolation -e .
	$(PYTHON) -m pysdk.cli devices

# GPU_TEST="tests/gpu/test_bits.py -x" tests a part
GPU_TEST ?= tests/gpu tests/cuda
gpu-test: gpu-install
	$(PYTHON) -m pytest --durations=10 $(GPU_TEST)

# GPU_BENCHMARK="--batches 16 --steps 50 --limit 300" measures a part
gpu-benchmark: gpu-install
	$(PYTHON) -m benchmarks.gpu.report $(GPU_BENCHMARK)

wheel: $(VENV)/build.stamp
	$(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps -w dist .

# the build's own tools are installed first, so that what compiles the extension is pinned as well
$(VENV)/build.stamp: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) scikit-build-core pybind11 cmake ninja
	touch $@

$(VENV)/export.stamp: $(VENV)/build.stamp $(SOURCES)
	$(PIP) --no-build-isolation -e '.[export]'
	touch $@

$(VENV)/test.stamp: $(VENV)/build.stamp $(SOURCES)
	PYSDK_TESTING=ON $(PIP) --no-build-isolation -e '.[test]'
	touch $@ $(VENV)/export.stamp

clean:
	rm -rf $(VENV) build dist out engine.plan .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
