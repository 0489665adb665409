# SPDX-License-Identifier: Apache-2.0
# A Context is refused where the program's floating-point numbers are not those of IEEE 754, though no compiler said so: it,
# or a library of it, was linked with -ffast-math (crtfastmath flushes denormals), or one unit was compiled with a part
# of -ffast-math that the compiler says nothing of.
file(MAKE_DIRECTORY ${WORK})
set(compile ${COMPILER} -std=c++20 -O2 -I${INCLUDE} -pthread)
function(build)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${WORK} RESULT_VARIABLE result ERROR_VARIABLE text)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "expected to build with '${ARGN}', got:\n${text}")
  endif()
endfunction()
# program_says(TEXT WHAT): what a Context says; empty: nothing.
function(program_says expected what)
  execute_process(COMMAND ${WORK}/program RESULT_VARIABLE code OUTPUT_VARIABLE text)
  if(expected STREQUAL "" AND code EQUAL 0 OR NOT expected STREQUAL "" AND code EQUAL 1 AND text MATCHES "${expected}")
    return()
  endif()
  message(FATAL_ERROR "expected a program ${what} to say '${expected}', got exit code ${code} and '${text}'")
endfunction()

execute_process(COMMAND ${COMPILER} --version OUTPUT_VARIABLE version)
execute_process(COMMAND ${COMPILER} -dumpversion OUTPUT_VARIABLE number OUTPUT_STRIP_TRAILING_WHITESPACE)
build(${compile} -c ${SOURCES}/floating_point_main.cpp -o main.o)
build(${compile} -c ${SOURCES}/floating_point_other.cpp -o other.o)
build(${COMPILER} -pthread main.o other.o -o program)
program_says("" "without such flags")
if(PROCESSOR MATCHES "x86_64|AMD64")
  build(${COMPILER} -pthread -ffast-math main.o other.o -o program)
  program_says("flush to zero" "that is linked with -ffast-math")
  # GCC 13 and later leave the CPU alone when they link a library; clang always did.
  if(NOT version MATCHES "clang" AND number VERSION_LESS 13)
    build(${COMPILER} -O2 -fPIC -shared -ffast-math -DDPMP_IS_NOT_INCLUDED ${SOURCES}/floating_point_other.cpp -o libother.so)
    build(${COMPILER} -pthread main.o -L. -lother -Wl,-rpath,${WORK} -o program)
    program_says("flush to zero" "with a library that is linked with -ffast-math")
  endif()
endif()
# What a compiler says nothing of: parts of -ffast-math for clang, a pragma for GCC.
set(unsaid "-DFLAGS_BY_PRAGMA")
if(version MATCHES "clang")
  set(unsaid "-freciprocal-math" "-fno-signed-zeros" "-fassociative-math -fno-signed-zeros -fno-trapping-math"
    "-funsafe-math-optimizations" "-ffast-math -fno-finite-math-only")
endif()
foreach(flags IN LISTS unsaid)
  separate_arguments(arguments UNIX_COMMAND "${flags}")
  build(${compile} ${arguments} -c ${SOURCES}/floating_point_other.cpp -o other_with_flags.o)
  build(${COMPILER} -pthread main.o other_with_flags.o -o program)
  program_says("floating_point_other.cpp" "one of whose units is compiled with ${flags}")
endforeach()
