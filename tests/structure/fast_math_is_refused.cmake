# SPDX-License-Identifier: Apache-2.0
# A unit that compiles with -O2 must be refused, by our own #error, with every flag that assumes finite
# numbers or reorders sums.
function(compile flag code output)
  execute_process(COMMAND ${COMPILER} -std=c++20 ${flag} -I${INCLUDE} -fsyntax-only ${SOURCES}/mixed_b.cpp
    RESULT_VARIABLE result ERROR_VARIABLE text)
  set(${code} ${result} PARENT_SCOPE)
  set(${output} "${text}" PARENT_SCOPE)
endfunction()

compile(-O2 code text)
if(NOT code EQUAL 0)
  message(FATAL_ERROR "expected -O2 to compile, got:\n${text}")
endif()
set(flags -Ofast -ffast-math -ffinite-math-only)
# Only g++ says that it reorders.
execute_process(COMMAND ${COMPILER} --version OUTPUT_VARIABLE version)
if(NOT version MATCHES "clang")
  list(APPEND flags -funsafe-math-optimizations)
endif()
foreach(flag IN LISTS flags)
  compile(${flag} code text)
  if(code EQUAL 0 OR NOT text MATCHES "dpmp must not be compiled with -ffast-math")
    message(FATAL_ERROR "expected ${flag} to be refused by dpmp's #error, got exit code ${code}:\n${text}")
  endif()
endforeach()
