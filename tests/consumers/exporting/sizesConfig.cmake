# SPDX-License-Identifier: Apache-2.0
include(CMakeFindDependencyMacro)
find_dependency(dpmp CONFIG)
include(${CMAKE_CURRENT_LIST_DIR}/sizesTargets.cmake)
