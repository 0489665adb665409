# SPDX-License-Identifier: Apache-2.0
# A unit that compiles with -O2 must be refused, by our own #error, with every flag that assumes finite numbers, reorders sums
# or replaces quotients, alone and in parts. What a compiler does not say is found when the program runs
# (floating_point_is_probed.cmake).
function(compile flags code output)
  separate_arguments(arguments UNIX_COMMAND "${flags}")
  execute_process(COMMAND ${COMPILER} -std=c++20 ${arguments} -I${INCLUDE} -fsyntax-only ${SOURCES}/mixed_b.cpp
    RESULT_VARIABLE result ERROR_VARIABLE text)
  set(${code} ${result} PARENT_SCOPE)
  set(${output} "${text}" PARENT_SCOPE)
endfunction()

# The last three change nothing that anything here rests on.
foreach(flag -O2 -frounding-math -fno-math-errno -fno-trapping-math)
  compile(${flag} code text)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "expected ${flag} to compile, got:\n${text}")
  endif()
endforeach()
set(flags -Ofast -ffast-math -ffinite-math-only "-O2 -ffast-math -fno-associative-math")
# Only g++ says the rest.
execute_process(COMMAND ${COMPILER} --version OUTPUT_VARIABLE version)
if(NOT version MATCHES "clang")
  list(APPEND flags -funsafe-math-optimizations "-ffast-math -fno-finite-math-only" -freciprocal-math -fno-signed-zeros
    "-fassociative-math -fno-signed-zeros -fno-trapping-math" -fsingle-precision-constant)
endif()
foreach(flag IN LISTS flags)
  compile("${flag}" code text)
  if(code EQUAL 0 OR NOT text MATCHES "dpmp must not be compiled with -f(fast-math|single-precision-constant)")
    message(FATAL_ERROR "expected ${flag} to be refused by dpmp's #error, got exit code ${code}:\n${text}")
  endif()
endforeach()
