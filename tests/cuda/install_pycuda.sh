#!/bin/sh
# Compile pycuda on a computer without a GPU and without the CUDA toolkit, and install it into an environment for tests.
# usage: install_pycuda.sh PYTHON [FOLDER]
#
# With a folder, the wheel is copied there instead of being installed: for a computer with a GPU, the same Python and no network.
# The headers come from NVIDIA's wheels, and the linker gets an empty libcuda. The wheel is kept in the user's cache, since compiling
# takes minutes. Fails with a reason where it cannot be done; the tests that need pycuda then skip.
set -eu
python=$1
version=2026.1
headers="nvidia-cuda-runtime==13.0.* nvidia-cuda-profiler-api==13.0.*"
tag=$("$python" -c 'import platform, sys; print(f"cp{sys.version_info[0]}{sys.version_info[1]}-{platform.machine()}")')
kept=${XDG_CACHE_HOME:-$HOME/.cache}/spatialnet-edge/pycuda-$version-$tag
pip="$python -m pip --quiet --disable-pip-version-check"

if ! ls "$kept"/pycuda-*.whl >/dev/null 2>&1; then
	for program in gcc g++ unzip tar; do
		command -v $program >/dev/null || { echo "pycuda is not compiled: no $program here" >&2; exit 1; }
	done
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	# shellcheck disable=SC2086 # two requirements
	$pip download --no-deps --dest "$work" $headers
	$pip download --no-deps --no-binary pycuda --dest "$work" "pycuda==$version"
	for wheel in "$work"/nvidia*.whl; do unzip -q -o "$wheel" -d "$work/headers"; done
	mkdir -p "$work/source" "$work/library" "$kept"
	tar xf "$work/pycuda-$version.tar.gz" -C "$work/source" --strip-components 1
	echo | gcc -x c -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$work/library/libcuda.so" -
	include=$(dirname "$(find "$work/headers" -name cuda.h)")
	cat >"$work/source/siteconf.py" <<-END
		CUDA_INC_DIR = ["$include"]
		CUDADRV_LIB_DIR = ["$work/library"]
		CUDA_ENABLE_CURAND = False
		LDFLAGS = ["-Wl,--no-as-needed", "-L$work/library", "-lcuda", "-Wl,--unresolved-symbols=ignore-all"]
	END
	CFLAGS=-O0 $pip wheel --no-deps --wheel-dir "$kept" "$work/source"
fi
if [ $# -gt 1 ]; then
	mkdir -p "$2"
	cp "$kept"/pycuda-*.whl "$2"
else
	$pip install "$kept"/pycuda-*.whl
fi
