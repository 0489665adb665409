# SPDX-License-Identifier: Apache-2.0
# clang as a CUDA compiler is refused with the reason: in the first header, and when a project is configured with it.
execute_process(COMMAND ${COMPILER} -x cuda --cuda-host-only -nocudainc -nocudalib -std=c++20 -I${INCLUDE} -fsyntax-only
    ${INCLUDE}/dpmp/core/config.hpp RESULT_VARIABLE code ERROR_VARIABLE text)
if(code EQUAL 0 OR NOT text MATCHES "compiled by nvcc: expected __NVCC__")
  message(FATAL_ERROR "expected clang -x cuda to be refused by dpmp's #error, got exit code ${code}:\n${text}")
endif()
execute_process(COMMAND ${CMAKE_COMMAND} -S ${SOURCES}/../.. -B ${WORK} -DCMAKE_CXX_COMPILER=${COMPILER}
    -DCMAKE_CUDA_COMPILER=${COMPILER} -DDPMP_WITH_CUDA=ON -DDPMP_WITH_ONEDNN=OFF -DDPMP_TESTS=OFF -DDPMP_BENCH=OFF
    -DDPMP_EXAMPLES=OFF RESULT_VARIABLE code ERROR_VARIABLE text OUTPUT_QUIET)
string(REGEX REPLACE "[ \n]+" " " text "${text}")
if(code EQUAL 0 OR NOT text MATCHES "and the kernels need nvcc")
  message(FATAL_ERROR "expected a project with clang for CUDA to be refused, got exit code ${code}:\n${text}")
endif()
