# Everything runs in a virtual environment, made from requirements.lock when it is missing or older than the lock.
# TORCH_BACKEND=cpu (or cu126, rocm6.4 ...: what uv's --torch-backend takes) uses another build of torch, in .venv-cpu.
PYTHON ?= python3
TORCH_BACKEND ?=
# the run, in the workbook's own parameters; without them the bundled synthetic benchmark and encoder. A list such as
# ENCODER=clip,remoteclip runs every combination.
DATASET_ROOT ?=
ENCODER ?=
ARCHITECTURE ?=
LISTING ?=
PROTOCOL ?=
PRECISION ?=
TEMPLATE ?=
SCHEDULER ?=
# a file of methods, encoders and benchmarks of one's own
PLUGINS ?=
# further arguments of the command behind a target, such as ARGS="04_weicom LAMBDAS=[0.3]" or ARGS=--quick
ARGS ?=

VENV := .venv$(if $(TORCH_BACKEND),-$(TORCH_BACKEND))
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
RUN := $(BIN)/python -m
RSCIR := $(RUN) rscir_lib
READY := $(VENV)/.ready
UV := $(shell grep -o '^uv==[0-9.]*' requirements.lock)
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
NBSTRIPOUT := nbstripout --keep-count --keep-id --extra-keys=metadata.language_info.version $(NOTEBOOKS)
# two to four processes test at once, each with one thread; each kernel and browser beside them takes memory, too
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 2 ? 2 : n > 4 ? 4 : n)))
PYTEST := pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
UNMARKED := not (slow or long or browser or notebook or campaign)
# the shell takes what a user gives from its environment, so that spaces and quotes in it stay as they are
NAMED := DATASET_ROOT ENCODER ARCHITECTURE LISTING PROTOCOL PRECISION TEMPLATE SCHEDULER PLUGINS
RESULTS := 01 02 04 05 09 --show 04_beside_chance,04_against_average,05_normalisation,09_how_sure
GIVEN = $(foreach name,$(NAMED),$(if $($(name)),"$(name)=$$$(name)"))
export $(NAMED) IMAGES CAPTIONS OUT
# trust what the system trusts, such as an institute's proxy
export UV_SYSTEM_CERTS ?= 1

.DEFAULT_GOAL := help
.PHONY: help workbook test test-fast test-long fuzz mutants lambdas lint lint-js format lab explore page paper book course bench scale soak chaos rehearse results reproduce fetch tiles adapt demo-encoder figures refresh lock clean

help: ## list the commands
	@awk -F ':.*## ' '/^##@ /{printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and 'Python 3.11 to 3.13 is needed: make PYTHON=python3.12 ...')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check $(UV)
ifeq ($(TORCH_BACKEND),)
	$(RUN) uv pip sync --quiet --compile-bytecode --python $(BIN)/python requirements.lock
else # the lock less the CUDA packages: the other build names its own
	grep -vE '^(nvidia-|cuda-|triton)' requirements.lock > $(VENV)/requirements.txt
	$(RUN) uv pip sync --quiet --compile-bytecode --python $(BIN)/python --torch-backend $(TORCH_BACKEND) $(VENV)/requirements.txt
endif
	$(RUN) uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

##@ Start here

workbook: $(READY) ## run every notebook that does not stand already (DATASET_ROOT=, ENCODER=, ARGS=)
	$(RSCIR) workbook $(GIVEN) $(ARGS)

lab: $(READY) ## open the notebooks in JupyterLab, the first in front
	$(RUN) jupyterlab $(ARGS) notebooks/01_dataset_construction.ipynb

explore: $(READY) ## pick a picture, type words, slide lambda: a page on this machine (DATASET_ROOT=, ENCODER=)
	$(RSCIR) explore $(GIVEN) $(ARGS)

page: $(READY) ## the same as files in runs/page, without Python and network (DATASET_ROOT=, ENCODER=)
	$(RSCIR) page $(GIVEN) $(ARGS)

##@ Teach

book: $(READY) ## the notebooks as they ran, the pages and the API as a web site in runs/book (DATASET_ROOT=, ENCODER=)
	$(RSCIR) book $(GIVEN) $(ARGS)

course: $(READY) ## the notebooks for students, without solutions, and for teachers, in runs/course (DATASET_ROOT=, ENCODER=)
	$(RSCIR) course $(GIVEN) $(ARGS)

##@ Publish

paper: $(READY) ## tables (LaTeX), figures (PDF), a methods paragraph, from RUNS="runs/synthcom_demo ..."
	$(RSCIR) paper $(or $(RUNS),runs/synthcom_demo) $(ARGS)

##@ Your own data and encoders

fetch: $(READY) ## download PatternNet, PatternCom and checkpoints into DATASET_ROOT
	$(RSCIR) fetch $(if $(DATASET_ROOT),"$$DATASET_ROOT") $(ARGS)

tiles: $(READY) ## large scenes as windows, listed for LISTING (DATASET_ROOT=, ARGS="--tile 256 --overlap 32")
	$(if $(DATASET_ROOT),,$(error make tiles needs DATASET_ROOT=folder of scenes))
	$(RSCIR) tiles "$$DATASET_ROOT" $(ARGS)

reproduce: $(READY) ## the published tables beside ours, one table of all encoders (DATASET_ROOT=.../PatternNet ENCODER=clip,remoteclip)
	$(RSCIR) workbook $(GIVEN) --show 04_map,04_beside_published,04_nearest_version --beside $(ARGS)

adapt: $(READY) ## train an encoder on your own archive (IMAGES=folder CAPTIONS=json OUT=folder), then its tables
	$(if $(and $(IMAGES),$(CAPTIONS),$(OUT)),,$(error make adapt needs IMAGES=folder CAPTIONS=file.json OUT=folder))
	$(RSCIR) train adapt "$$IMAGES" "$$CAPTIONS" --out "$$OUT" $(ARGS)
	$(RSCIR) workbook $(RESULTS) "DATASET_ROOT=$$IMAGES" "ENCODER=$$OUT" "LISTING=$$OUT/heldout.csv"

results: $(READY) ## notebooks 4, 5 and 9, their tables printed: methods x attributes, chance, intervals (DATASET_ROOT=, ENCODER=)
	$(RSCIR) workbook $(RESULTS) $(GIVEN) $(ARGS)

##@ Speed and size

soak: $(READY) ## hundreds of visitors ask the explorer for minutes, servers are killed beneath them (ARGS=--quick)
	$(BIN)/python tests/campaigns/soak.py $(ARGS)

chaos: $(READY) ## kill extraction, drawing and training hundreds of times and compare the bits (ARGS=--quick)
	$(BIN)/python tests/campaigns/chaos.py $(ARGS)

bench: $(READY) ## speed and memory, as ratios (ARGS=--quick for a small one)
	$(BIN)/python tests/campaigns/bench $(ARGS)

scale: $(READY) ## ten million features on disk (16 GB, yours to delete): scanned, searched, ranked, on cores and on Dask
	$(BIN)/python tests/campaigns/bench scale $(ARGS)

rehearse: $(READY) ## the whole chain at PatternNet's size, on synthetic scenes and random weights
	$(BIN)/python tests/campaigns/bench rehearse $(ARGS)

##@ Work on the workbook itself

test: $(READY) lint ## lint, the tests, the notebooks' committed tables through nbval: ten minutes on two cores
	$(RUN) $(PYTEST) --durations=20 -m "not (long or campaign)" --nbval-lax --nbval-current-env tests notebooks $(ARGS)

test-long: $(READY) ## the rest: every notebook through papermill, real pictures, the book in a browser, short campaigns
	$(RUN) $(PYTEST) -p no:nbval --durations=20 -m "long or campaign" tests $(ARGS)

test-fast: $(READY) ## a minute's worth of the tests, without lint: before each commit
	$(RUN) $(PYTEST) -p no:nbval --hypothesis-profile=fast -m "$(UNMARKED)" tests $(ARGS)

lambdas: $(READY) ## WHUCom's methods, and lambda without a label (ARGS=a folder of RS-TransCLIP's features)
	$(BIN)/python tests/campaigns/lambdas.py $(ARGS)

fuzz: $(READY) ## damaged files of every kind to every reader (ARGS=--quick, or a part of a reader's name)
	$(BIN)/python tests/campaigns/fuzz.py $(ARGS)

mutants: $(READY) ## change operators and numbers one by one: does a test notice? (ARGS=ranking or ARGS="--sample 100")
	$(BIN)/python tests/campaigns/mutants.py $(ARGS)

lint: $(READY) lint-js ## ruff on code and notebooks, mypy on the core; notebooks committed clean; JavaScript where npm is there
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(RUN) $(NBSTRIPOUT) --verify

lint-js: ## the explorer's and the labeller's JavaScript: format, lint, types (needs npm; a few seconds)
	@if ! command -v npm > /dev/null; then echo "lint-js: skipped, there is no npm on this machine (nodejs.org)"; else \
	cd tests/javascript && { test node_modules/.package-lock.json -nt package-lock.json || npm ci --silent; } \
	|| { echo "lint-js: skipped, npm can't reach its registry"; exit 0; } && npx biome check . ../../rscir_lib && npx tsc --project .; fi

format: $(READY) ## put code and notebooks in shape
	$(RUN) ruff check --fix
	$(RUN) ruff format
	$(RUN) $(NBSTRIPOUT)

refresh: $(READY) ## run the notebooks in place and keep the result tables that nbval checks
	$(RUN) nbconvert --to=notebook --execute --inplace --log-level=WARN $(sort $(NOTEBOOKS))
	$(RUN) $(NBSTRIPOUT)

figures: workbook ## put the README's figures into figures/ (scaling.png after make scale)
	$(BIN)/python tests/campaigns/contact_sheet.py data/synthcom figures/synthcom.png
	cp runs/synthcom_demo/figures/06_gallery_color.png figures/gallery.png
	cp runs/synthcom_demo/figures/05_lambda_curves.png figures/lambda.png
	cp runs/synthcom_demo/figures/10_two_normals.png figures/two_normals.png
	$(BIN)/python tests/campaigns/browser.py figures/explorer.png figures/labelling.png
	test ! -f runs/scale/scaling.png || cp runs/scale/scaling.png figures/scaling.png
	$(BIN)/python -c "import glob; from PIL import Image; [Image.open(p).convert('RGB').quantize(256).save(p, optimize=True) for p in glob.glob('figures/*.png')]"

demo-encoder: $(READY) ## train the bundled encoder again, on synthetic scenes
	$(BIN)/python tests/campaigns/demo_encoder.py $(ARGS)

# without hashes: conda installs the lock and this project in one call, which pip refuses where hashes are, and another
# TORCH_BACKEND's wheels have other ones
lock: $(READY) ## resolve requirements.lock afresh
	$(RUN) uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-header --upgrade pyproject.toml -o requirements.lock

clean: ## remove what the commands made; what people made stays: labels, marks, trained encoders, course copies
	@for note in runs/*/run.json; do if test -f "$$note"; then run="$${note%/run.json}"; \
	(cd "$$run" && rm -rf features tables figures notebooks thumbnails index.html .lock); \
	test "$$(ls -A "$$run")" != run.json || rm -r "$$run"; fi; done
	@rm -rf runs/book runs/.book runs/.lock; if test -f runs/page/explorer.js; then rm -rf runs/page; fi
	@if test -f data/synthcom/synthcom.json; then cd data/synthcom && rm -rf images patternnet.csv .lock \
	&& (cd PatternCom && rm -f color.csv context.csv density.csv existence.csv quantity.csv shape.csv); rmdir PatternCom; \
	test "$$(ls -A)" != synthcom.json || rm -r ../synthcom; fi 2>/dev/null
	@for left in runs/* data/synthcom; do if test -e "$$left"; then echo "kept, since people may have made it: $$left"; fi; done
	@rmdir runs 2>/dev/null || true
