# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts beside it: finds the packages of Debian and Ubuntu that are missing and installs them. Does nothing,
# and needs no network, when nothing is missing.
say() { printf '%s\n' "== $*"; }
warn() { printf '%s\n' "   $*" >&2; }
die() {
  printf '%s\n' "error: $*" >&2
  exit 1
}

# has_header NAME...: one of these headers lies in a system folder or below CMAKE_PREFIX_PATH.
has_header() {
  local name prefix prefixes
  IFS=':;' read -r -a prefixes <<<"/usr:/usr/local:${CMAKE_PREFIX_PATH-}"
  for name in "$@"; do
    for prefix in "${prefixes[@]}"; do
      if [ -n "$prefix" ] && [ -e "$prefix/include/$name" ]; then return 0; fi
    done
  done
  return 1
}

# at_least WANTED FOUND: compares version numbers.
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# C++20 as it is used here needs GCC 12; Ubuntu 22.04 has it beside its own GCC 11.
choose_compiler() {
  compiler_package=''
  if [ -n "${CXX-}" ]; then return; fi
  if command -v g++ >/dev/null && at_least 12 "$(g++ -dumpversion)"; then return; fi
  if ! command -v g++-12 >/dev/null; then
    compiler_package=g++
    if command -v g++ >/dev/null || grep -qs '^VERSION_ID="22.04"' /etc/os-release; then compiler_package=g++-12; fi
    if [ "$compiler_package" = g++ ]; then return; fi
  fi
  export CXX=g++-12
}

# Sets `required` and `optional` to the names of the packages that are missing.
find_missing() {
  required=() optional=()
  choose_compiler
  if [ -n "$compiler_package" ]; then required+=("$compiler_package"); fi
  command -v cmake >/dev/null || required+=(cmake)
  command -v ninja >/dev/null || required+=(ninja-build)
  has_header eigen3/Eigen/Core || required+=(libeigen3-dev)
  has_header nlohmann/json.hpp || required+=(nlohmann-json3-dev)
  has_header doctest/doctest.h || required+=(doctest-dev)
  has_header CLI/CLI.hpp || required+=(libcli11-dev)
  has_header zlib.h || optional+=(zlib1g-dev)
  has_header png.h || optional+=(libpng-dev)
  has_header unicode/uchar.h || optional+=(libicu-dev)
  has_header oneapi/dnnl/dnnl.hpp dnnl.hpp || optional+=(libdnnl-dev)
  # Debian's oneDNN asks for it when it is found, and only recommends it.
  has_header CL/cl.h || optional+=(ocl-icd-opencl-dev)
  has_header benchmark/benchmark.h || optional+=(libbenchmark-dev)
  command -v ccache >/dev/null || optional+=(ccache)
  command -v bible >/dev/null || optional+=(bible-kjv)
  # Where there is nvcc and no GPU, the CUDA tests run on an emulated device that is partly written in Python.
  if command -v nvcc >/dev/null && ! command -v python3 >/dev/null; then optional+=(python3); fi
}

# Sets `as_root` to the words that run a command as root; fails where there are none.
find_root() {
  as_root=()
  if [ "$(id -u)" -eq 0 ]; then return 0; fi
  command -v sudo >/dev/null || return 1
  as_root=(sudo)
  # With a terminal sudo may ask for the password; without one it must work silently.
  if [ -t 0 ]; then sudo -v; else sudo -n true 2>/dev/null; fi
}

apt_install() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -o DPkg::Lock::Timeout=120 install -y -q --no-install-recommends "$@"
}

# Package lists may be missing or old: they are fetched once, and only when an installation failed.
install_or_update() {
  if apt_install "$@"; then return 0; fi
  if [ -z "${lists_updated-}" ]; then
    lists_updated=yes
    say "updating the package lists"
    "${as_root[@]}" apt-get -q update || return 1
    apt_install "$@"
  else
    return 1
  fi
}

install_missing() {
  find_missing
  if [ ${#required[@]} -eq 0 ] && [ ${#optional[@]} -eq 0 ]; then
    say "packages: nothing is missing"
    return
  fi
  local all=("${required[@]}" "${optional[@]}") package
  local line="apt-get install -y --no-install-recommends ${all[*]}"
  if ! command -v apt-get >/dev/null || ! find_root; then
    if [ ${#required[@]} -gt 0 ]; then
      die "these packages are missing and cannot be installed from here. As root, run:
    $line"
    fi
    warn "optional packages are missing: ${optional[*]}. As root, run: $line"
    return
  fi
  say "packages: installing ${all[*]}"
  if ! install_or_update "${all[@]}"; then
    if [ ${#required[@]} -gt 0 ]; then
      install_or_update "${required[@]}" || die "the installation failed. As root, run:
    $line"
    fi
    for package in "${optional[@]}"; do
      install_or_update "$package" || warn "$package could not be installed; going on without it"
    done
  fi
}

# check_cmake: the oldest CMake that works.
check_cmake() {
  local found
  found=$(cmake --version | sed -n '1s/cmake version //p')
  at_least 3.22 "$found" || die "CMake 3.22 or newer is needed, found $found"
}

# configure PRESET [SETTING...]: into build/PRESET of the repository, with Ninja where it is installed.
configure() {
  check_cmake
  if command -v ninja >/dev/null; then export CMAKE_GENERATOR="${CMAKE_GENERATOR-Ninja}"; fi
  say "configuring preset $1 into build/$1"
  cmake --preset "$@"
}

cores() { nproc 2>/dev/null || echo 1; }
