# make demo    make the demonstration model and a video with it: demo.mp4
# make test    check and test everything that runs without a GPU, on all cores
# make slow    the slow tests: kills, loads, fuzzers (FUZZ_SECONDS each)
# make serve   serve the demonstration model: a page, and the OpenAI Videos protocol
# make bench   measure the transformer beside diffusers'
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
# Many processes start: what they import is compiled once, even where bytecode is not written otherwise.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test tests slow lint style types format bench serve clean

demo: $(READY)
	$(BIN)/entracte demo-model demo-model
	$(BIN)/entracte generate --model demo-model --output-path demo.mp4 --force \
		--prompt "A big shiny red ball bounces on the beach. Each bounce makes a knock." \
		--height 256 --width 384 --num-frames 49 --num-inference-steps 15

PYTEST := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses logical --dist worksteal

# mypy takes one core for most of a minute: tests begin meanwhile on the other.
test: $(READY) style
	$(MAKE) --no-print-directory --jobs types tests

tests: $(READY)
	$(PYTEST)

slow: $(READY)
	$(PYTEST) --slow -m "(slow or hypothesis) and not gpu"

lint: style types

style: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python benchmarks/transformer.py

serve: $(READY)
	$(BIN)/entracte demo-model demo-model
	$(BIN)/entracte serve --model demo-model --default-size 384x256 --default-seconds 1

# uv takes seconds where pip takes minutes, but does not read where pip is told to find wheels.
# Python compiles what it imports.
$(READY): pyproject.toml constraints.txt tests/serve/openai-2.30.0.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	export UV_FIND_LINKS="$${UV_FIND_LINKS-$${PIP_FIND_LINKS-$$($(PYTHON) -m pip config get global.find-links 2>/dev/null)}}" && \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable ".[dev,fleet]" && \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --target $(VENV)/openai-2.30.0 \
		--requirement tests/serve/openai-2.30.0.txt
	touch $(READY)

clean:
	rm -rf $(VENV) demo-model demo.mp4
