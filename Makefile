PYTHON ?= python3
VENV ?= .venv

BIN := $(abspath $(VENV))/bin
TREE := build/tree
PACKAGE := spikeinterface_simsort

.DEFAULT_GOAL := help
.PHONY: help demo test audit slow figures physics networks studies confidence bench bench-full train clean $(TREE)
# Two targets must not install into one environment at once.
.NOTPARALLEL:

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F '|' '{ printf "%-11s%s\n", $$1, $$2 }'

demo: $(VENV)/.installed-simulation ## Simulate a recording, sort it, and compare with the truth (demo_output/).
	$(BIN)/simsort demo --output demo_output

test: $(VENV)/.installed-dev $(TREE) ## Run the static checks and all tests but the slow ones.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	cd $(TREE) && $(BIN)/lint-imports --config $(CURDIR)/pyproject.toml --no-cache
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml $(PACKAGE) simulation training
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadscope

audit: $(VENV)/.installed-dev ## Look up known vulnerabilities of all that is installed (needs a network).
	@mkdir -p build
	$(BIN)/pip freeze --exclude-editable | sed 's/+[a-z0-9]*$$//' > build/audited.txt
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement build/audited.txt

slow: $(VENV)/.installed-dev ## Run the slow tests; those of pages need Chromium.
	$(BIN)/pytest -m slow

figures: $(VENV)/.installed-simulation ## Print accuracy, speed and memory: make figures BANK=folder with layer-6 cells.
	$(BIN)/python -m benchmarks.figures --bank $(or $(BANK),$(error name a neuron bank, as in: make $@ BANK=folder))

physics: $(VENV)/.installed-dev ## Check the simulation: make physics SHARED=folder with reference_traces BANK=folder.
	$(BIN)/python -m benchmarks.reference_traces --shared $(or $(SHARED),$(error name the folder that holds reference_traces)) --output benchmarks/results --figure docs/reference_traces.png
	$(BIN)/python -m benchmarks.faithful --output benchmarks/results/faithful.csv
	$(BIN)/python -m benchmarks.spike_shapes --bank $(or $(BANK),$(error name a neuron bank)) --output benchmarks/results --figure docs/spike_shapes.png
	$(BIN)/python -m benchmarks.composition_speed --bank $(BANK)

networks: $(VENV)/.installed-dev ## Score the networks: make networks SHARED=folder with recordings BANK=folder with layer-6 cells.
	$(BIN)/python -m benchmarks.network_speed
	$(BIN)/python -m benchmarks.detector --bank $(or $(BANK),$(error name a neuron bank)) --output benchmarks/results --figure docs/detection.png
	$(BIN)/python -m benchmarks.embedder --bank $(BANK) --output benchmarks/results/embedder.csv
	$(BIN)/python -m benchmarks.finetuning --bank $(BANK) --output benchmarks/results/finetuning.csv
	$(BIN)/python -m benchmarks.axona --recordings $(or $(SHARED),$(error name the folder that holds recordings))/recordings/axona --output benchmarks/results/axona.csv

studies: $(VENV)/.installed-dev ## Train again and again: make studies BANK=folder TEST_BANK=folder with layer-6 cells (hours).
	for study in scaling ablations embedders; do \
		$(BIN)/python -m benchmarks.training_studies $$study --bank $(or $(BANK),$(error name a neuron bank)) \
			--test-bank $(or $(TEST_BANK),$(error name the bank to test on)) --runs runs/studies \
			--output benchmarks/results/$$study.csv --figure docs/scaling.png || exit 1; \
	done

confidence: $(VENV)/.installed-dev ## Fit predicted accuracy anew, after a change of the sorter: make confidence BANK=folder (an hour).
	$(BIN)/python -m benchmarks.confidence --bank $(or $(BANK),$(error name a neuron bank)) --datasets $(wildcard runs/benchmarks/data) --output benchmarks/results --figure docs/confidence.png

# Data sets whose sources are not named are left out, and said to be.
BENCHMARKS := $(BIN)/python -m benchmarks $(if $(BANK),--bank $(BANK)) $(if $(SHARED),--waveforms $(SHARED)/waveforms) $(if $(PUBLISHED),--published $(PUBLISHED))
MOUNTAINSORT4 := build/mountainsort4
# Whatever runs sorters looks for it there.
bench bench-full: export MOUNTAINSORT4_PYTHON := $(abspath $(MOUNTAINSORT4))/bin/python

bench: $(VENV)/.installed-benchmarks $(MOUNTAINSORT4)/.installed ## Compare with other sorters, one recording a family: make bench BANK=folder SHARED=folder with waveforms.
	$(BENCHMARKS)
	$(BIN)/python -m benchmarks.plots

bench-full: $(VENV)/.installed-benchmarks $(MOUNTAINSORT4)/.installed ## The same with all recordings, ablations, real recordings and speed (many hours).
	$(BENCHMARKS) --full
	$(BIN)/python -m benchmarks.plots
	$(if $(SHARED),$(BIN)/python -m benchmarks.by_hand)
	$(if $(SHARED),$(BIN)/python -m benchmarks.embedding_case runs/benchmarks/data/hybrid_static/0 --umap --figure docs/embedding_case.png)
	$(BIN)/python -m benchmarks.clustering_ablation --datasets runs/benchmarks/data --num-recordings 4 --output benchmarks/results/clustering_ablation.csv --figure docs/clustering_ablation.png
	$(BIN)/python -m benchmarks.scaling --runs runs/benchmarks/scaling --output benchmarks/results/time_scaling.csv --figure docs/time_scaling.png
	$(BIN)/python -m benchmarks.many_tetrodes --runs runs/benchmarks/many_tetrodes --output benchmarks/results/many_tetrodes.csv
	$(BIN)/python -m benchmarks.tetrodes_by_sorter --runs runs/benchmarks/tetrodes_by_sorter --output benchmarks/results/tetrodes_by_sorter.csv
	$(if $(BANK),$(BIN)/python -m benchmarks.conditions --bank $(BANK) --runs runs/benchmarks/conditions --output benchmarks/results/conditions.csv --figure docs/conditions.png)
	$(if $(BANK),$(BIN)/python -m benchmarks.ibl_waveforms --bank $(BANK) --output benchmarks/results/ibl_waveforms.csv)
	$(if $(SHARED),$(BIN)/python -m benchmarks.real_recordings --recordings $(SHARED)/recordings/locust --runs runs/benchmarks/real --output benchmarks/results/real_recordings.csv --figure docs/real_recordings.png)

# MountainSort4 goes with no numpy of today.
$(MOUNTAINSORT4)/.installed:
	@rm -f $@
	$(PYTHON) -m venv $(MOUNTAINSORT4)
	$(MOUNTAINSORT4)/bin/pip install "numpy<2" spikeinterface==0.102.3 mountainsort4==1.0.7
	@touch $@

train: $(VENV)/.installed-training ## Train the default networks and export them to runs/default: make train BANK=folder.
	$(BIN)/simsort train all --bank $(or $(BANK),$(error name a neuron bank, as in: make $@ BANK=folder)) --output runs/default

clean: ## Remove builds, caches and the demo's output; environment and training runs stay.
	rm -rf build dist *.egg-info demo_output .pytest_cache .ruff_cache .hypothesis
	find $(PACKAGE) simulation training benchmarks tests -name __pycache__ -prune -exec rm -rf {} +

# One stamp for each extra, left only by an installation that succeeded.
# torch goes first and alone, so that the rest keeps the build pip finds for it: the CPU build where there is one.
$(VENV)/.installed-%: pyproject.toml constraints.txt
	@rm -f $@
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -c constraints.txt torch
	$(BIN)/pip install -c constraints.txt -e ".[$*]"
	@touch $@

# The packages under their installed names, for checkers that read folders and know nothing of package-dir.
$(TREE):
	rm -rf $@
	mkdir -p $@/$(PACKAGE)
	ln -s $(CURDIR)/$(PACKAGE)/* $(CURDIR)/simulation $(CURDIR)/training $@/$(PACKAGE)/
