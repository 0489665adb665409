# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by run: what the machine and the bundle are like, and where CUDA's libraries and tools are.
# shellcheck disable=SC2034,SC2154  # variables are shared with run and the files beside this one

# manifest KEY: what the bundle's manifest says.
manifest() {
  local line
  while IFS= read -r line; do
    if [ "${line%%: *}" = "$1" ]; then
      printf '%s\n' "${line#*: }"
      return
    fi
  done <"$here/manifest"
}

# unpack: the programs, below the output folder, where they are not there already; checked against the manifest.
unpack() {
  bin=$output/programs
  mkdir -p "$output" || die "expected a folder that can be made for --output, got '$output'"
  if [ ! -e "$bin/SHA256SUMS" ] || [ "$(<"$bin/SHA256SUMS")" != "$(<"$here/SHA256SUMS")" ]; then
    say "unpacking"
    rm -rf "$bin"
    mkdir -p "$bin"
    if command -v tar >/dev/null && command -v xz >/dev/null; then
      tar -C "$bin" -xJf "$here/programs.tar.xz" || die "programs.tar.xz could not be unpacked into $bin"
    elif [ -n "$python" ]; then
      "$python" -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$here/programs.tar.xz" "$bin" ||
        die "programs.tar.xz could not be unpacked into $bin"
    else
      die "expected tar and xz, or python3, to unpack programs.tar.xz"
    fi
  fi
  (cd "$bin" && sha256sum --quiet -c "$here/SHA256SUMS" >/dev/null 2>&1) ||
    die "the programs are not those of the manifest: the bundle is damaged. Fetch it again, and remove $bin"
  cp "$here/SHA256SUMS" "$bin/"
}

check_cpu() {
  local line flag
  [ "$(uname -m)" = "$(manifest machine)" ] || die "expected a $(manifest machine) machine, got $(uname -m)"
  [ -r /proc/cpuinfo ] || return 0
  while IFS= read -r line; do
    if [[ $line == flags* ]]; then
      for flag in $(manifest 'cpu flags'); do
        case "$line " in *" $flag "*) ;; *) die "the programs are compiled for a CPU with $flag, which this one has not" ;; esac
      done
      return
    fi
  done </proc/cpuinfo
}

check_gpu() {
  local device
  if [ -n "$emulated" ]; then return; fi
  if [[ "$(nvidia-smi -L 2>/dev/null)" == GPU* ]]; then return; fi
  for device in /dev/nvidia[0-9]* /dev/dxg; do
    if [ -e "$device" ]; then return; fi
  done
  die "no NVIDIA GPU was found: 'nvidia-smi -L' lists none, and there is no /dev/nvidia0"
}

# Folders where CUDA's libraries may lie, one a line.
library_folders() {
  local folder root
  local IFS=:
  for folder in ${LD_LIBRARY_PATH-}; do printf '%s\n' "$folder"; done
  unset IFS
  for root in "${CUDA_HOME-}" "${CUDA_PATH-}" "${CONDA_PREFIX-}" /usr/local/cuda "/usr/local/cuda-$major" /usr/local/cuda-* /opt/cuda; do
    if [ -n "$root" ]; then printf '%s\n' "$root/lib64" "$root/lib" "$root/targets/x86_64-linux/lib"; fi
  done
  printf '%s\n' /usr/lib/x86_64-linux-gnu /usr/lib64 /usr/lib
  if [ -n "$python" ]; then
    "$python" -c 'import glob, os, site, sys
for folder in dict.fromkeys(sys.path + site.getsitepackages() + [site.getusersitepackages()]):
    print(*sorted(glob.glob(os.path.join(glob.escape(folder), "nvidia", "*", "lib"))), sep="\n")
    print(os.path.join(folder, "torch", "lib"))' 2>/dev/null
  fi
}

# find_library NAME: sets `found` to the first folder that holds it, and makes programs look there.
find_library() {
  local folder
  while IFS= read -r folder; do
    if [ -n "$folder" ] && [ -e "$folder/$1" ]; then
      found=$folder/$1
      case ":${LD_LIBRARY_PATH-}:" in
        *":$folder:"*) ;;
        *) export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder ;;
      esac
      return
    fi
  done <<<"$(library_folders)"
  die "$1 was not found, beside PyTorch's packages neither: set CUDA_HOME or LD_LIBRARY_PATH to where CUDA $major's libraries are"
}

# find_tool NAME: sets `tool`, empty where it is not there.
find_tool() {
  local place
  tool=$(command -v "$1" || true)
  for place in "${CUDA_HOME:-/usr/local/cuda}/bin/$1" /usr/local/cuda*/bin/"$1" /opt/nvidia/nsight-compute/*/"$1"; do
    if [ -z "$tool" ] && [ -x "$place" ]; then tool=$place; fi
  done
}
