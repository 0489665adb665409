# SPDX-License-Identifier: Apache-2.0
# A unit that compiles with -O2 must be refused, by our own #error, with every flag that assumes finite numbers.
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
foreach(flag -Ofast -ffast-math -ffinite-math-only)
  compile(${flag} code text)
  if(code EQUAL 0 OR NOT text MATCHES "dpmp must not be compiled with -ffast-math")
    message(FATAL_ERROR "expected ${flag} to be refused by dpmp's #error, got exit code ${code}:\n${text}")
  endif()
endforeach()
