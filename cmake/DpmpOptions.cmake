# SPDX-License-Identifier: Apache-2.0
# Every option of the build. AUTO takes what is found and says so; ON fails when it is not found.
function(dpmp_tristate name doc)
  set(${name} AUTO CACHE STRING "${doc} (AUTO, ON, OFF)")
  set_property(CACHE ${name} PROPERTY STRINGS AUTO ON OFF)
  if(NOT ${name} MATCHES "^(AUTO|ON|OFF)$")
    message(FATAL_ERROR "dpmp: expected ${name} to be AUTO, ON or OFF, got '${${name}}'")
  endif()
endfunction()

dpmp_tristate(DPMP_WITH_CUDA "The target dpmp::cuda")
dpmp_tristate(DPMP_WITH_ONEDNN "oneDNN for matrix products on the CPU")
dpmp_tristate(DPMP_WITH_OPENMP "OpenMP threads; OFF means std::thread")

option(DPMP_TESTS "Build dpmp's tests" ${PROJECT_IS_TOP_LEVEL})
option(DPMP_BENCH "Build dpmp's benchmarks" ${PROJECT_IS_TOP_LEVEL})
option(DPMP_EXAMPLES "Build dpmp's examples" ${PROJECT_IS_TOP_LEVEL})
dpmp_tristate(DPMP_EMULATOR "Run the CUDA tests on an emulated device (tests/emulator); AUTO: where there is nvcc and no GPU")
option(DPMP_NATIVE "Compile dpmp's own programs with -march=native (never passed on to users)" ${PROJECT_IS_TOP_LEVEL})
option(DPMP_WARNINGS_AS_ERRORS "Warnings in dpmp's own programs are errors" OFF)
