# numattn::numattn, the shared library with the interface of numattn.h; and in projects with C++
# numattn::static, which has the C++ one of numattn/*.h as well.
include(${CMAKE_CURRENT_LIST_DIR}/numattnTargets.cmake)

get_property(numattn_languages GLOBAL PROPERTY ENABLED_LANGUAGES)
if("CXX" IN_LIST numattn_languages)
  include(CMakeFindDependencyMacro)
  find_dependency(Threads)
  include(${CMAKE_CURRENT_LIST_DIR}/numattnStaticTargets.cmake)
endif()
