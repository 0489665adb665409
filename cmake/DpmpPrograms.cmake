# SPDX-License-Identifier: Apache-2.0
# How dpmp's own programs are compiled. None of these flags reaches a user of the library.
include(CheckCXXCompilerFlag)

add_library(dpmp_program_flags INTERFACE)
set(dpmp_cuda_warnings -Wall,-Wextra)
set(dpmp_warnings -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  # False alarms of GCC 12: the deliberately undefined registers inside its own AVX-512 headers, which Eigen uses (PR 105593),
  # and "text" + std::string (PR 105329).
  list(APPEND dpmp_warnings -Wno-maybe-uninitialized -Wno-restrict)
  set(dpmp_cuda_warnings -Wall,-Wextra,-Wno-maybe-uninitialized,-Wno-restrict)
endif()
if(DPMP_WARNINGS_AS_ERRORS)
  list(APPEND dpmp_warnings -Werror)
endif()
# nvcc writes line directives that -Wpedantic reports, and expands code that -Wconversion was not meant for.
target_compile_options(dpmp_program_flags INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:${dpmp_warnings}>"
  "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${dpmp_cuda_warnings}>"
  "$<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${DPMP_WARNINGS_AS_ERRORS}>>:-Werror=all-warnings>")
# Tokenizers ask ICU about characters; what includes dpmp/interop/tokenizer.hpp links it.
find_package(ICU QUIET COMPONENTS uc)

# One instruction set, that of this machine, for all but targets whose DPMP_ALL_INSTRUCTION_SETS is on: they choose at run
# time, as a user's program does.
if(DPMP_NATIVE AND DPMP_HOST_ISA STREQUAL native)
  check_cxx_compiler_flag(-march=native DPMP_COMPILER_KNOWS_NATIVE)
  if(DPMP_COMPILER_KNOWS_NATIVE)
    set(one_set $<NOT:$<BOOL:$<TARGET_PROPERTY:DPMP_ALL_INSTRUCTION_SETS>>>)
    target_compile_options(dpmp_program_flags INTERFACE $<$<AND:$<COMPILE_LANGUAGE:CXX>,${one_set}>:-march=native>
      $<$<AND:$<COMPILE_LANGUAGE:CUDA>,${one_set}>:-Xcompiler=-march=native>)
    target_compile_definitions(dpmp_program_flags INTERFACE $<${one_set}:DPMP_HOST_ISA_NATIVE=1>)
  endif()
endif()

target_compile_definitions(dpmp_program_flags INTERFACE
  $<$<BOOL:$<TARGET_PROPERTY:DPMP_ALL_INSTRUCTION_SETS>>:DPMP_HOST_ISA_ALL=1>)

# Where an emulated device runs the tests, what nvcc wrote is readable PTX with the lines it came from.
function(dpmp_cuda_flags target)
  set_target_properties(${target} PROPERTIES CUDA_RUNTIME_LIBRARY Shared)
  if(DPMP_EMULATED)
    set_target_properties(${target} PROPERTIES CUDA_ARCHITECTURES 80-virtual)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo --no-compress>)
  endif()
endfunction()

# A library that is installed runs on other machines: it chooses among instruction sets at run time.
if(NOT DPMP_INSTALL_COMPILED)
  target_link_libraries(dpmp_compiled PRIVATE dpmp_program_flags)
endif()
if(DPMP_HAVE_CUDA)
  target_link_libraries(dpmp_compiled_cuda PRIVATE dpmp_program_flags)
  dpmp_cuda_flags(dpmp_compiled_cuda)
endif()

# dpmp_cuda_program(NAME SOURCES...): one executable of ours with a GPU's half.
function(dpmp_cuda_program name)
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE dpmp_compiled_cuda dpmp_program_flags)
  dpmp_cuda_flags(${name})
endfunction()

# dpmp_program(NAME SOURCES... ): one executable of ours; of those in `dpmp_on_any_device` one with a GPU's half, where there
# is CUDA.
function(dpmp_program name)
  if(DPMP_HAVE_CUDA AND name IN_LIST dpmp_on_any_device)
    dpmp_cuda_program(${name} ${ARGN})
    return()
  endif()
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE dpmp_compiled dpmp_program_flags)
endfunction()

# dpmp_programs_of(FOLDER PREFIX [HEADER TARGET PACKAGE]...): one program for each FOLDER/*.cpp. Those that include HEADER
# link TARGET, and are left out with a line saying so where PACKAGE is not installed.
function(dpmp_programs_of folder prefix)
  file(GLOB sources CONFIGURE_DEPENDS ${folder}/*.cpp)
  foreach(source IN LISTS sources)
    get_filename_component(stem ${source} NAME_WE)
    set(name ${stem})
    if(NOT name MATCHES "^${prefix}")
      set(name ${prefix}${stem})
    endif()
    set(libraries "")
    set(missing "")
    set(packages "")
    set(rest ${ARGN})
    while(rest)
      list(POP_FRONT rest header target package)
      file(STRINGS ${source} needs REGEX "#include *[<\"]${header}")
      if(needs AND TARGET ${target})
        list(APPEND libraries ${target})
      elseif(needs)
        list(APPEND missing ${header})
        list(APPEND packages ${package})
      endif()
    endwhile()
    if(missing)
      list(JOIN missing ", " missing)
      list(JOIN packages " " packages)
      message(STATUS "dpmp: left out ${name}: needs ${missing} (Debian and Ubuntu: apt install ${packages})")
      continue()
    endif()
    dpmp_program(${name} ${source})
    target_include_directories(${name} PRIVATE ${folder})
    target_link_libraries(${name} PRIVATE ${libraries})
  endforeach()
endfunction()
