# SPDX-License-Identifier: Apache-2.0
# `cmake --install` and the package that find_package(dpmp) finds. With DPMP_INSTALL=ON in a project that adds this one, that
# project can export libraries that link dpmp::dpmp: its package then says find_dependency(dpmp).
include(CMakePackageConfigHelpers)

set(dpmp_package_dir ${CMAKE_INSTALL_DATADIR}/cmake/dpmp)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/dpmp DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.hpp" PATTERN "*.cuh")
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/dpmp)
install(TARGETS dpmp EXPORT dpmpTargets)
install(EXPORT dpmpTargets NAMESPACE dpmp:: DESTINATION ${dpmp_package_dir})
# In a file of its own: a user without the CUDA toolkit still gets dpmp::dpmp.
if(DPMP_HAVE_CUDA)
  install(TARGETS dpmp_cuda EXPORT dpmpCudaTargets)
  install(EXPORT dpmpCudaTargets NAMESPACE dpmp:: DESTINATION ${dpmp_package_dir})
endif()

if(DPMP_INSTALL_COMPILED)
  set_target_properties(dpmp_compiled PROPERTIES EXCLUDE_FROM_ALL OFF)
  install(TARGETS dpmp_compiled EXPORT dpmpCompiledTargets)
  install(EXPORT dpmpCompiledTargets NAMESPACE dpmp:: DESTINATION ${dpmp_package_dir})
  set(dpmp_independent "")
else()
  set(dpmp_independent ARCH_INDEPENDENT)
endif()

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/dpmpConfig.cmake.in dpmpConfig.cmake
  INSTALL_DESTINATION ${dpmp_package_dir})
write_basic_package_version_file(dpmpConfigVersion.cmake COMPATIBILITY SameMinorVersion ${dpmp_independent})
install(FILES ${PROJECT_BINARY_DIR}/dpmpConfig.cmake ${PROJECT_BINARY_DIR}/dpmpConfigVersion.cmake
  DESTINATION ${dpmp_package_dir})
