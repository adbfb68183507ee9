# shellcheck shell=bash
# Shared by the scripts beside this file: finding and fetching tools, running steps, counting.
# Sourced, never run. What is fetched goes to .deps/ (no root) or comes by apt (root).

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
deps=$root/.deps
logs=$root/build/logs

# Pinned: later nvvm and crt wheels write PTX that this ptxas refuses, so no dependency is left
# to the resolver.
cuda_wheels=(
    nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
)

# The readers and writers that the tests of the formats compare with, and what those need.
formats_wheels=(
    numpy==2.4.6 pyarrow==26.0.1 safetensors==0.8.0
    gguf==0.19.0 PyYAML==6.0.3 requests==2.34.2 tqdm==4.70.1
    certifi==2026.10.18 charset-normalizer==3.5.2 idna==3.20 urllib3==2.8.0
)

passed=0
failed=0
skipped=0

say() { printf '== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }

# ---- counting ------------------------------------------------------------------------------

pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    printf '   FAILED: %s\n' "$*"
}
skip() {
    skipped=$((skipped + 1))
    printf '   skipped: %s\n' "$*"
}

# finish: the closing line that people and counters read, and the exit status.
finish() {
    printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
    [ "$failed" -eq 0 ]
}

# step NAME COMMAND...: one check; its output is shown only when it fails.
step() {
    local name=$1 log
    shift
    log=$(log_of "$name")
    say "$name"
    if "$@" >"$log" 2>&1; then
        pass
    else
        tail -n 60 "$log"
        fail "$name (the whole output: $log)"
    fi
}

# counted KIND NAME COMMAND...: a command that runs many tests; KIND (cargo, ctest, summary)
# says how they are counted. Its output is shown as it comes.
counted() {
    local kind=$1 name=$2 log status=0 counts more
    shift 2
    log=$(log_of "$name")
    say "$name"
    "$@" 2>&1 | tee "$log" || status=$?
    counts=$("count_$kind" "$log")
    # shellcheck disable=SC2086 # three numbers
    set -- $counts
    more=$2
    # A command that failed before it could count (it did not compile, say) is a failure too.
    if [ "$status" -ne 0 ] && [ "$more" -eq 0 ]; then
        more=1
    fi
    # Nothing counted at all is a step that tested nothing.
    if [ "$(($1 + more + $3))" -eq 0 ]; then
        more=1
    fi
    passed=$((passed + $1))
    failed=$((failed + more))
    skipped=$((skipped + $3))
    [ "$more" -eq 0 ] || printf '   FAILED: %s (the whole output: %s)\n' "$name" "$log"
}

log_of() {
    mkdir -p "$logs"
    printf '%s/%s.log' "$logs" "$(printf '%s' "$1" | tr -c 'A-Za-z0-9_\n' '-')"
}

# "test result: ok. 3 passed; 0 failed; 1 ignored; ..." of each test program, and ctest2's
# "PASSED 66 tests", whose 66 comparisons are one test here. "ignored, run by X" marks the part of
# test X that runs in a process of its own: it is counted with X, and not skipped.
count_cargo() {
    awk '/^test result:/ { for (i = 2; i <= NF; i++) {
                               if ($i == "passed;") p += $(i - 1)
                               if ($i == "failed;") f += $(i - 1)
                               if ($i == "ignored;") s += $(i - 1) } }
         /^test .* \.\.\. ignored, run by / { s -= 1 }
         /^PASSED [0-9]+ tests/ { p += 1 }
         END { print p + 0, f + 0, s + 0 }' "$1"
}

# The last "N passed, N failed, N skipped" line of a script of ours.
count_summary() {
    awk '/^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ { p = $1; f = $3; s = $5 }
         END { print p + 0, f + 0, s + 0 }' "$1"
}

# ctest's own list: "1/9 Test #1: name ....   Passed    0.01 sec".
count_ctest() {
    awk '/^ *[0-9]+\/[0-9]+ Test +#/ {
             if (/\*\*\*Skipped/) s++; else if (/ Passed +[0-9]/) p++; else f++ }
         END { print p + 0, f + 0, s + 0 }' "$1"
}

# ---- tools ---------------------------------------------------------------------------------

# by_apt PACKAGE...: true when they could be installed; needs root.
by_apt() {
    [ "$(id -u)" -eq 0 ] && have apt-get || return 1
    note "apt-get install $*"
    export DEBIAN_FRONTEND=noninteractive
    if [ -z "${gds_apt_updated:-}" ]; then
        apt-get update -qq >/dev/null 2>&1 || return 1
        gds_apt_updated=1
    fi
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1
}

# need_venv: a Python environment of our own in .deps/venv, true when there is one.
need_venv() {
    venv=$deps/venv
    if [ -x "$venv/bin/pip" ]; then
        return 0
    fi
    have python3 || { note "there is no python3"; return 1; }
    mkdir -p "$deps"
    note "python3 -m venv .deps/venv"
    python3 -m venv "$venv" >/dev/null 2>&1 && return 0
    rm -rf "$venv"
    by_apt python3-venv && python3 -m venv "$venv" >/dev/null 2>&1
}

# by_pip PACKAGE...: true when they are in .deps/venv.
by_pip() {
    need_venv || return 1
    note "pip install $* (into .deps/venv)"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$@"
}

# need_formats_python: the Python that the tests of the formats compare with, in .deps/formats-venv;
# sets and exports GDS_FORMATS_PYTHON. One that is set already is taken as it is.
need_formats_python() {
    local folder=$deps/formats-venv
    if [ -n "${GDS_FORMATS_PYTHON:-}" ]; then
        [ -x "$GDS_FORMATS_PYTHON" ]
        return
    fi
    if [ "$(cat "$folder/complete" 2>/dev/null)" != "${formats_wheels[*]}" ]; then
        need_venv || return 1
        note "pip install ${formats_wheels[*]} (130 MiB, into .deps/formats-venv)"
        rm -rf "$folder"
        python3 -m venv "$folder" >/dev/null 2>&1 || return 1
        "$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps \
            "${formats_wheels[@]}" || return 1
        printf '%s' "${formats_wheels[*]}" >"$folder/complete"
    fi
    export GDS_FORMATS_PYTHON=$folder/bin/python3
}

# need_cxx: g++ where only a C compiler was installed; true when there is a C++ compiler.
need_cxx() { have c++ || have g++ || by_apt g++; }

cmake_is_new_enough() {
    local version
    version=$("$1" --version 2>/dev/null | awk 'NR == 1 { print $3 }')
    [ -n "$version" ] && [ "$(printf '3.22\n%s\n' "$version" | sort -V | head -n 1)" = 3.22 ]
}

# need_cmake: sets cmake, ctest and generator; true when they can be used.
need_cmake() {
    export PATH="$PATH:$deps/venv/bin"
    if ! cmake_is_new_enough cmake; then
        by_apt cmake || by_pip cmake==4.4.4 || true
        # An old one on the PATH hides the fetched one.
        if ! cmake_is_new_enough cmake; then
            by_pip cmake==4.4.4 || return 1
            export PATH="$deps/venv/bin:$PATH"
        fi
    fi
    cmake_is_new_enough cmake || return 1
    have ninja || by_apt ninja-build || by_pip ninja==1.13.2 || true
    if have ninja; then
        generator=Ninja
    elif have make; then
        generator='Unix Makefiles'
    else
        return 1
    fi
}

# need_pkg_config: true when pkg-config can be called.
need_pkg_config() {
    have pkg-config || by_apt pkg-config || return 1
}

# need_nvcc: sets nvcc; one on the PATH, in CUDA_HOME, or the wheels in .deps/cuda.
need_nvcc() {
    local toolkit=$deps/cuda/nvidia/cu13
    if have nvcc; then
        nvcc=$(command -v nvcc)
        return 0
    fi
    if [ -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ]; then
        nvcc=${CUDA_HOME:-/usr/local/cuda}/bin/nvcc
        return 0
    fi
    nvcc=$toolkit/bin/nvcc
    if [ -e "$deps/cuda/complete" ]; then
        return 0
    fi
    need_venv || return 1
    note "pip install ${cuda_wheels[*]} (100 MiB, into .deps/cuda)"
    rm -rf "$deps/cuda"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
        --target "$deps/cuda" "${cuda_wheels[@]}" || return 1
    # nvcc's profile and FindCUDAToolkit look in lib64 and for a plain libcudart.so.
    ln -sfn lib "$toolkit/lib64"
    ln -sfn libcudart.so.13 "$toolkit/lib/libcudart.so"
    touch "$deps/cuda/complete"
}

# need_rust: true when cargo can be called.
need_rust() {
    have cargo || export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
    have cargo || { note "there is no cargo: install Rust from https://rustup.rs"; return 1; }
}

# ---- building ------------------------------------------------------------------------------

# configure DIRECTORY OPTION...: cmake over this tree, with nvcc when need_nvcc found one.
configure() {
    local directory=$1
    shift
    if [ -n "${nvcc:-}" ]; then
        set -- -DCMAKE_CUDA_COMPILER="$nvcc" "$@"
    fi
    # Another generator's tree cannot be reused.
    if [ -e "$directory/CMakeCache.txt" ] &&
        ! grep -q "^CMAKE_GENERATOR:INTERNAL=$generator\$" "$directory/CMakeCache.txt"; then
        rm -rf "$directory/CMakeCache.txt" "$directory/CMakeFiles"
    fi
    cmake -S "$root" -B "$directory" -G "$generator" "$@"
}
