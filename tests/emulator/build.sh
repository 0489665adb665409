#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# usage: build.sh [build folder]    the libraries are left in its lib/
set -e
here=$(cd "$(dirname "$0")" && pwd)
build=${1:-$here/build}
cmake -S "$here" -B "$build"
cmake --build "$build"
