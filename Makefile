# The two main commands: `make demo` and `make test`.
PYTHON ?= python3
DEMO := .venv
TEST := .venv-test
PIP := -m pip install --quiet --disable-pip-version-check
OUT := demo_output

.PHONY: demo test docs test-cuda run-free-threaded test-machine test-oldest test-peers lint bench bench-peers footprint schema clean

demo: $(DEMO)/.installed
	$(DEMO)/bin/spatialnet-edge build builtin:spatialnet-s --target here -o $(OUT)/landuse.snb --report $(OUT)/report.html
	$(DEMO)/bin/spatialnet-edge run $(OUT)/landuse.snb samples/brighton_beach.mp4 --smooth 0.3 \
		--json $(OUT)/results.jsonl --video $(OUT)/annotated.mp4
	@echo "wrote $(OUT)/: landuse.snb report.html results.jsonl annotated.mp4"

# Two test files at a time, each with one thread for its arithmetic.
test: $(TEST)/.installed lint docs
	OMP_NUM_THREADS=1 $(TEST)/bin/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Compiles pycuda without a GPU, for the tests that run it on a stand-in of NVIDIA's driver; the first time takes a few minutes.
test-cuda: $(TEST)/.installed
	sh tests/cuda/install_pycuda.sh $(TEST)/bin/python

# The documentation as a site, in site/. A broken link or an undocumented public name is an error.
docs: $(TEST)/.installed
	NO_MKDOCS_2_WARNING=1 $(TEST)/bin/mkdocs build --quiet --strict

# Real peers for tests that are skipped without them: a broker, a browser, GStreamer with its bindings, systemd. Debian, as root.
test-peers: $(TEST)/.installed
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mosquitto chromium systemd gcc libc6-dev \
		python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
		gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-rtsp
	ln -sfn /usr/lib/python3/dist-packages/gi "$$($(TEST)/bin/python -c 'import site; print(site.getsitepackages()[0])')/gi"

# The suite with the oldest libraries that pyproject.toml admits. torch and torchvision are those of the package index, with GPU support and
# several gigabytes.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python $(PIP) uv
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest --resolution lowest-direct -c constraints-test.txt \
		-e '.[ccsds,geo,mavlink,mqtt,openvino,optimize,training]'
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest hypothesis jsonschema psutil pytest pytest-timeout
	.venv-oldest/bin/pytest -W default

# The runtime on free-threaded CPython, which must be installed (PYTHON=python3.14t); not tried yet. The test suite needs OpenCV, which
# has no wheel for it.
run-free-threaded:
	$(PYTHON) -c 'import sys; sys.exit(getattr(sys, "_is_gil_enabled", lambda: True)() and "give PYTHON=python3.14t")'
	$(PYTHON) -m venv .venv-free-threaded
	.venv-free-threaded/bin/python $(PIP) -e '.[video]'
	PYTHON_GIL=0 .venv-free-threaded/bin/spatialnet-edge run builtin:spatialnet-s samples/brighton_beach.mp4

# The service on a virtual machine with systemd, a kernel camera and real power cuts. Debian, as root; takes a quarter of an hour.
test-machine:
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-system-x86 debootstrap
	sh tests/machine/image.sh .machine
	$(PYTHON) tests/machine/fly.py .machine

lint: $(TEST)/.installed
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/lint-imports
	$(TEST)/bin/pyright --pythonpath $(TEST)/bin/python

bench: $(DEMO)/.installed
	$(DEMO)/bin/spatialnet-edge bench builtin:spatialnet-s samples/brighton_beach.mp4

# Other runtimes on the same work, in a separate environment of several gigabytes, because two of them need torch; Python 3.11 or
# 3.12. All versions are pinned: a resolver finds none that every peer admits. OTHER is another checkout of this project to compare.
bench-peers:
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python $(PIP) --no-deps --no-compile -r benchmarks/peers/requirements.txt -e .
	.venv-peers/bin/python -m spatialnet_benchmarks.peers samples/brighton_beach.mp4 --plot docs/images/peers.png \
		$(if $(OTHER),--other-checkout $(OTHER))

footprint:
	rm -rf .venv-bare
	$(PYTHON) -m venv .venv-bare
	.venv-bare/bin/python $(PIP) .
	.venv-bare/bin/python -m spatialnet_benchmarks.footprint 'synthetic:frames=300&size=1280x720'
	.venv-bare/bin/python $(PIP) '.[opencv,video]'
	.venv-bare/bin/python -m spatialnet_benchmarks.footprint samples/brighton_beach.mp4

schema: $(TEST)/.installed
	$(TEST)/bin/spatialnet-edge inspect --schema > docs/manifest.schema.json

# The runtime, video, and the requirements of `build`; no torch.
$(DEMO)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python $(PIP) -e '.[opencv,optimize,video]'
	touch $@

# All dependencies, at versions that are known to pass together.
$(TEST)/.installed: pyproject.toml constraints-test.txt
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/python $(PIP) -c constraints-test.txt -e '.[test]'
	touch $@

clean:
	rm -rf $(DEMO) $(TEST) .venv-bare .venv-free-threaded .venv-oldest .venv-peers .machine $(OUT) dist .pytest_cache .ruff_cache .hypothesis
