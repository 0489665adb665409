# SPDX-License-Identifier: Apache-2.0
# tests/<layer>/test_*.cu become one program and one ctest entry each. On a GPU they run as they are; on the emulated device
# those of tests/cuda run in several orders of the threads, with both timings of cp.async, and under the race detector.

# dpmp_cuda_test(NAME SUFFIX SETTING...): one entry; SUFFIX "" is the one that builds the kernels for the others.
function(dpmp_cuda_test name suffix)
  add_test(NAME ${name}${suffix} COMMAND ${name})
  set(environment ${test_environment})
  if(DPMP_EMULATED)
    list(APPEND environment LD_LIBRARY_PATH=${DPMP_EMULATOR_LIBRARIES} EMU_CACHE=${CMAKE_BINARY_DIR}/emulated_kernels
         EMU_POISON=1 ${ARGN})
  endif()
  set_tests_properties(${name}${suffix} PROPERTIES ENVIRONMENT "${environment}" SKIP_REGULAR_EXPRESSION "^skipped: ")
  if(NOT suffix STREQUAL "")
    set_tests_properties(${name}${suffix} PROPERTIES DEPENDS ${name})
  endif()
endfunction()

file(GLOB sources CONFIGURE_DEPENDS */test_*.cu)
foreach(source IN LISTS sources)
  get_filename_component(name ${source} NAME_WE)
  if(NOT DPMP_HAVE_CUDA)
    add_test(NAME ${name} COMMAND ${CMAKE_COMMAND} -E echo "skipped: CUDA is ${DPMP_CUDA_SUMMARY}")
    set_tests_properties(${name} PROPERTIES SKIP_REGULAR_EXPRESSION "^skipped: ")
    continue()
  endif()
  dpmp_cuda_program(${name} ${source})
  # Of the host's code, as in the other tests; what runs on the device is always fully optimised.
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-Xcompiler=-O1>)
  target_link_libraries(${name} PRIVATE dpmp_test_main)
  if(NOT DPMP_EMULATED AND NOT dpmp_gpus AND source MATCHES "/tests/cuda/")
    set_target_properties(${name} PROPERTIES EXCLUDE_FROM_ALL ON)  # built for other machines by scripts/gpu_bundle
    add_test(NAME ${name} COMMAND ${CMAKE_COMMAND} -E echo "skipped: no GPU was found, and DPMP_EMULATOR is ${DPMP_EMULATOR}")
    set_tests_properties(${name} PROPERTIES SKIP_REGULAR_EXPRESSION "^skipped: ")
    continue()
  endif()
  dpmp_cuda_test(${name} "" EMU_THREADS=0)
  if(NOT DPMP_EMULATED OR NOT source MATCHES "/tests/cuda/")
    continue()
  endif()
  dpmp_cuda_test(${name} _reverse EMU_ORDER=reverse EMU_CPASYNC=issue EMU_THREADS=0)
  dpmp_cuda_test(${name} _ahead EMU_ORDER=priority:1 EMU_THREADS=0)
  dpmp_cuda_test(${name} _races EMU_RACE=1)
endforeach()

# The project that users copy, with its GPU's main.
if(DPMP_EMULATED OR (DPMP_HAVE_CUDA AND dpmp_gpus))
  dpmp_cuda_program(skeleton_cuda ${PROJECT_SOURCE_DIR}/examples/skeleton/main_cuda.cu)
  dpmp_cuda_test(skeleton_cuda "" EMU_THREADS=0)
endif()

# What the library of products refuses is left to kernels behind it.
if(DPMP_EMULATED)
  dpmp_cuda_test(test_products _bias_only EMU_EPILOGUES=bias EMU_THREADS=0)
  # Algorithms whose results depend on their place are refused, whether they say so or not.
  dpmp_cuda_test(test_products _bad_algorithms EMU_ALGORITHMS=bad EMU_THREADS=0)
  dpmp_cuda_test(test_position_free _mixed_algorithms EMU_ALGORITHMS=mixed EMU_THREADS=0)
  dpmp_cuda_test(test_position_free _bad_algorithms EMU_ALGORITHMS=bad EMU_THREADS=0)
endif()

# Registers and spills, from ptxas on the PTX in the programs.
if(DPMP_EMULATED)
  get_filename_component(cuda_bin ${CMAKE_CUDA_COMPILER} DIRECTORY)
  find_program(DPMP_PTXAS ptxas HINTS ${cuda_bin})
  mark_as_advanced(DPMP_PTXAS)
  set(check_resources ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/cuda/check_resources.py ${DPMP_PTXAS})
  add_test(NAME cuda_kernel_resources
    COMMAND ${check_resources} ${CMAKE_CURRENT_SOURCE_DIR}/cuda/resources.txt sm_80 sm_90 sm_100 -- $<TARGET_FILE:test_ghost_norm>
      $<TARGET_FILE:test_instantiate_norm> $<TARGET_FILE:test_weighted_sum> $<TARGET_FILE:test_attention>)
endif()

# The main job with a GPU's half, beside the same run on the CPU.
if(DPMP_EMULATED AND TARGET train_gpt)
  add_test(NAME cuda_train_gpt
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/cuda/check_train_gpt.py ${DPMP_EMULATOR_LIBRARIES}
      $<TARGET_FILE:train_gpt>)
  set_tests_properties(cuda_train_gpt PROPERTIES ENVIRONMENT EMU_CACHE=${CMAKE_BINARY_DIR}/emulated_kernels)
endif()

# What scripts/gpu_bundle packs runs where there is next to nothing, and is cut off at any moment without loss. The kernels of
# these programs are built by the tests that come before.
if(DPMP_EMULATED AND TARGET train_gpt)
  add_test(NAME cuda_bundle
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/cuda/check_bundle.py ${PROJECT_SOURCE_DIR} ${CMAKE_BINARY_DIR}
      ${DPMP_EMULATOR_LIBRARIES} test_segment_sum train_gpt)
  set_tests_properties(test_segment_sum cuda_train_gpt PROPERTIES FIXTURES_SETUP kernels_of_bundle)
  set_tests_properties(cuda_bundle PROPERTIES FIXTURES_REQUIRED kernels_of_bundle)
endif()

# What a training step asks of a GPU: sectors, bank conflicts, launches.
if(DPMP_EMULATED AND TARGET bench_cuda_step)
  add_test(NAME cuda_counts
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/cuda/check_counts.py ${DPMP_EMULATOR_LIBRARIES}
      ${CMAKE_CURRENT_SOURCE_DIR}/cuda/launches.txt $<TARGET_FILE:bench_cuda_step>)
  set_tests_properties(cuda_counts PROPERTIES ENVIRONMENT EMU_CACHE=${CMAKE_BINARY_DIR}/emulated_kernels)
endif()
