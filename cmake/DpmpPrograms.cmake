# SPDX-License-Identifier: Apache-2.0
# How dpmp's own programs are compiled. None of these flags reaches a user of the library.
include(CheckCXXCompilerFlag)

find_program(DPMP_CCACHE ccache)
mark_as_advanced(DPMP_CCACHE)
if(PROJECT_IS_TOP_LEVEL AND DPMP_CCACHE)
  foreach(language CXX CUDA)
    if(NOT DEFINED CMAKE_${language}_COMPILER_LAUNCHER)
      # Paths below the checkout count relative to it: what one checkout compiled serves another.
      set(CMAKE_${language}_COMPILER_LAUNCHER
        ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${DPMP_CCACHE})
    endif()
  endforeach()
endif()

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
if(DPMP_NATIVE)
  check_cxx_compiler_flag(-march=native DPMP_COMPILER_KNOWS_NATIVE)
  if(DPMP_COMPILER_KNOWS_NATIVE)
    target_compile_options(dpmp_program_flags INTERFACE
      $<$<COMPILE_LANGUAGE:CXX>:-march=native> $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-march=native>)
  endif()
endif()

# Matrix products are half of the compile time of a small program: all of ours share one copy.
add_library(dpmp_gemm_unit STATIC ${CMAKE_CURRENT_LIST_DIR}/gemm_unit.cpp)
target_link_libraries(dpmp_gemm_unit PUBLIC dpmp PRIVATE dpmp_program_flags)
target_compile_definitions(dpmp_gemm_unit PUBLIC DPMP_GEMM_IN_OWN_UNIT=1)

if(DPMP_HAVE_CUDA)
  add_library(dpmp_gemm_unit_cuda STATIC ${CMAKE_CURRENT_LIST_DIR}/gemm_unit.cpp)
  target_link_libraries(dpmp_gemm_unit_cuda PUBLIC dpmp_cuda PRIVATE dpmp_program_flags)
  target_compile_definitions(dpmp_gemm_unit_cuda PUBLIC DPMP_GEMM_IN_OWN_UNIT=1)
endif()

# dpmp_cuda_program(NAME SOURCES...): one executable of ours with CUDA units. The runtime is shared and, where an emulated
# device runs the tests, what nvcc wrote is readable PTX with the lines it came from.
function(dpmp_cuda_program name)
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE dpmp_gemm_unit_cuda dpmp_program_flags)
  set_target_properties(${name} PROPERTIES CUDA_RUNTIME_LIBRARY Shared)
  if(DPMP_EMULATED)
    set_target_properties(${name} PROPERTIES CUDA_ARCHITECTURES 80-virtual)
    target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo --no-compress>)
  endif()
endfunction()

# dpmp_program(NAME SOURCES... ): one executable of ours.
function(dpmp_program name)
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE dpmp_gemm_unit dpmp_program_flags)
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
