# make demo    make the demonstration model and a video with it: demo.mp4
# make test    check and test everything that runs without a GPU, on all cores
# make bench   measure the transformer beside diffusers'
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo test lint format bench clean

demo: $(READY)
	$(BIN)/entracte demo-model demo-model
	$(BIN)/entracte generate --model demo-model --output-path demo.mp4 \
		--prompt "A lighthouse at dusk, waves breaking on the rocks, a foghorn far away" \
		--height 256 --width 384 --num-frames 49 --num-inference-steps 8

test: $(READY) lint
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses logical --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python benchmarks/transformer.py

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) demo-model demo.mp4
