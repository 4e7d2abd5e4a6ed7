# The library for C, C++ and whatever calls C: targets numattn::numattn, shared, with the interface of
# numattn.h, and numattn::static, which has the C++ one of numattn/*.h as well; and their installation.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

add_library(numattn SHARED ${NUMATTN_C_SOURCES})
target_compile_options(numattn PRIVATE ${NUMATTN_BASELINE} ${NUMATTN_FLAGS} $<$<CONFIG:Release>:-O2>)
target_compile_definitions(numattn PRIVATE NUMATTN_EXPORTS)
target_include_directories(numattn PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/cpp/include>
                                          $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(numattn PRIVATE $<BUILD_INTERFACE:numattn_core>)
set_target_properties(numattn PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${NUMATTN_ABI_VERSION})
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  target_link_options(numattn PRIVATE -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/numattn.map
                                      -Wl,--no-undefined $<$<CONFIG:Release>:-s>)
  set_target_properties(numattn PROPERTIES LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/numattn.map)
endif()
set_target_properties(numattn_core PROPERTIES OUTPUT_NAME numattn EXPORT_NAME static)
add_library(numattn::numattn ALIAS numattn)
add_library(numattn::static ALIAS numattn_core)

numattn_add_onnxruntime(numattn_onnxruntime cpp/onnxruntime/linked_core.cpp)
target_link_libraries(numattn_onnxruntime PRIVATE numattn)
set_target_properties(numattn_onnxruntime PROPERTIES INSTALL_RPATH "$ORIGIN")

if(NOT NUMATTN_INSTALL)
  return()
endif()

# Two lists of targets: a project in C alone can use the first, while the second is linked as C++ is.
set(numattn_cmake ${CMAKE_INSTALL_LIBDIR}/cmake/numattn)
install(TARGETS numattn EXPORT numattnTargets)
install(TARGETS numattn_core EXPORT numattnStaticTargets)
install(TARGETS numattn_onnxruntime LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY cpp/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
foreach(targets numattnTargets numattnStaticTargets)
  install(EXPORT ${targets} NAMESPACE numattn:: DESTINATION ${numattn_cmake})
endforeach()
set(numattn_version_file ${CMAKE_CURRENT_BINARY_DIR}/numattnConfigVersion.cmake)
write_basic_package_version_file(${numattn_version_file} COMPATIBILITY SameMinorVersion)
install(FILES cmake/numattnConfig.cmake ${numattn_version_file} DESTINATION ${numattn_cmake})

# The prefix is where the file lies, so that the tree may be moved.
file(RELATIVE_PATH NUMATTN_PC_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" NUMATTN_PC_PREFIX ${NUMATTN_PC_PREFIX})
configure_file(cmake/numattn.pc.in numattn.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/numattn.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
