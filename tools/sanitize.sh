#!/usr/bin/env bash
# Runs the native tests, or those given, on an extension built with sanitizers:
# tools/sanitize.sh PYTHON address,undefined|thread [TESTS...]
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 sanitizers=$2
tests=("${@:3}")
[[ ${#tests[@]} -gt 0 ]] || tests=(tests/native tests/cuda/test_simulated_*.py)
name=build/sanitize-${sanitizers//,/-}
case $sanitizers in
  *address*) libraries="libasan.so libubsan.so" ;;
  thread) libraries=libtsan.so ;;
  *) echo "unknown sanitizers '$sanitizers'; use address,undefined or thread" >&2; exit 2 ;;
esac

# an environment of its own that sees the packages of the first, but not its editable install
"$python" -m venv --without-pip "$name"
packages=$("$python" -c 'import sys; print("\n".join(path for path in sys.path if path.endswith("-packages")))')
own=$("$name/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$packages" > "$own/base.pth"
PYSDK_CUDA=OFF PYSDK_TESTING=ON PYSDK_SANITIZE=$sanitizers "$python" -m pip --python "$name/bin/python" install --quiet --no-build-isolation --no-deps \
  --config-settings=build-dir="$name-cmake" .

preload=$(for library in $libraries; do g++ -print-file-name="$library"; done | tr '\n' ' ')
# PYTHONSAFEPATH: otherwise the checkout's pysdk/, which has no extension in it, comes before the installed one
export PYTHONSAFEPATH=1 PYSDK_SANITIZE=$sanitizers ASAN_OPTIONS=detect_leaks=0
export TSAN_OPTIONS=ignore_noninstrumented_modules=1
LD_PRELOAD=$preload "$name/bin/python" -m pytest -q "${tests[@]}" -o pythonpath=tests -p no:cacheprovider
if [[ $sanitizers == *address* ]]; then
  LD_PRELOAD=$preload PYTHONPATH=tests "$name/bin/python" -m kit.engine.fuzz --seconds "${FUZZ_SECONDS:-60}"
fi
