// The functions of numattn.h that are used, out of numattn._core: a second copy of the kernels
// would double the wheel, and a module of Python's cannot be linked to everywhere.
#include <dlfcn.h>

#include "core.h"
#include "numattn.h"

namespace numattn::onnxruntime {
namespace {

// Where it lies, as seen from the folder of this library.
constexpr const char* kModule = NUMATTN_MODULE_FILE;

struct Core {
  Core();

  decltype(&numattn_attention) attention = nullptr;
  decltype(&numattn_rope) rope = nullptr;
  decltype(&numattn_contiguous) contiguous = nullptr;
  decltype(&numattn_last_error) last_error = nullptr;
  std::string missing;
};

template <class Function>
void find(void* module, const char* name, Function& function, std::string& missing) {
  function = reinterpret_cast<Function>(dlsym(module, name));
  if (function == nullptr && missing.empty()) missing = std::string("no function ") + name;
}

// Never closed: the module stays where Python has loaded it, and so do its threads.
Core::Core() {
  Dl_info own;
  if (dladdr(reinterpret_cast<const void*>(&missing_core), &own) == 0) {
    missing = "the folder of this library is unknown";
    return;
  }
  const std::string path = own.dli_fname;
  const std::string file = path.substr(0, path.rfind('/') + 1) + kModule;
  void* module = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) {
    const char* words = dlerror();
    missing = words == nullptr ? file : words;
    return;
  }
  find(module, "numattn_attention", attention, missing);
  find(module, "numattn_rope", rope, missing);
  find(module, "numattn_contiguous", contiguous, missing);
  find(module, "numattn_last_error", last_error, missing);
}

const Core& core() {
  static const Core* const found = new Core;
  return *found;
}

}  // namespace

std::string missing_core() { return core().missing; }

}  // namespace numattn::onnxruntime

// Called where nothing is missing.
extern "C" numattn_status numattn_attention(const numattn_attention_args* args) {
  return numattn::onnxruntime::core().attention(args);
}

extern "C" numattn_status numattn_rope(const numattn_rope_args* args) {
  return numattn::onnxruntime::core().rope(args);
}

extern "C" numattn_tensor numattn_contiguous(const void* data, int32_t dtype, int32_t rank,
                                             const int64_t* shape) {
  return numattn::onnxruntime::core().contiguous(data, dtype, rank, shape);
}

extern "C" const char* numattn_last_error(void) {
  return numattn::onnxruntime::core().last_error();
}
