// Version, instruction sets and threads.
#include <cstddef>
#include <string>
#include <vector>

#include "numattn/isa.h"
#include "numattn/threads.h"
#include "outcome.h"

#define NUMATTN_TEXT(number) #number
#define NUMATTN_DOTTED(major, minor, patch) \
  NUMATTN_TEXT(major) "." NUMATTN_TEXT(minor) "." NUMATTN_TEXT(patch)

using namespace numattn::c;

extern "C" const char* numattn_version(void) {
  return NUMATTN_DOTTED(NUMATTN_VERSION_MAJOR, NUMATTN_VERSION_MINOR, NUMATTN_VERSION_PATCH);
}

extern "C" int32_t numattn_abi_version(void) { return NUMATTN_ABI_VERSION; }

extern "C" const char* numattn_isa_current(void) {
  const char* name = nullptr;
  guarded([&] {
    name = numattn::current_isa();
    return numattn_status{NUMATTN_OK};
  });
  return name;
}

extern "C" const char* numattn_isa_available(int32_t index) {
  const char* name = nullptr;
  guarded([&] {
    // Names that callers may keep.
    static const std::vector<std::string> names = numattn::available_isas();
    if (index >= 0 && static_cast<std::size_t>(index) < names.size()) {
      name = names[static_cast<std::size_t>(index)].c_str();
    }
    return numattn_status{NUMATTN_OK};
  });
  return name;
}

extern "C" numattn_status numattn_isa_use(const char* name) {
  return guarded([&] {
    if (name == nullptr) refuse("name", "must not be NULL");
    numattn::use_isa(name);
    return numattn_status{NUMATTN_OK};
  });
}

extern "C" int32_t numattn_get_num_threads(void) {
  int32_t count = 1;
  guarded([&] {
    count = numattn::get_num_threads();
    return numattn_status{NUMATTN_OK};
  });
  return count;
}

extern "C" numattn_status numattn_set_num_threads(int32_t count) {
  return guarded([&] {
    numattn::set_num_threads(count);
    return numattn_status{NUMATTN_OK};
  });
}
