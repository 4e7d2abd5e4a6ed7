# numattn::headers: numattn.h and numattn/*.h, as the wheel has them. It has no library: for
# numattn::numattn and numattn::static, install that from the sources.
if(NOT TARGET numattn::headers)
  set(numattn_headers ${CMAKE_CURRENT_LIST_DIR}/../include)
  if(NOT EXISTS ${numattn_headers}/numattn.h)  # a checkout
    set(numattn_headers ${CMAKE_CURRENT_LIST_DIR}/../../cpp/include)
  endif()
  add_library(numattn::headers INTERFACE IMPORTED)
  set_target_properties(numattn::headers PROPERTIES INTERFACE_INCLUDE_DIRECTORIES ${numattn_headers})
endif()
