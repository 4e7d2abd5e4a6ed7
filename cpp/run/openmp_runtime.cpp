#include "openmp_runtime.h"

#include <dlfcn.h>
#ifdef __APPLE__
#include <mach-o/dyld.h>
#else
#include <link.h>
#endif

#include <atomic>
#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <mutex>

namespace numattn {
namespace {

#ifdef __APPLE__
constexpr const char* kNames[] = {"libomp.dylib", "libiomp5.dylib", "libgomp.1.dylib"};
#else
constexpr const char* kNames[] = {"libgomp.so.1", "libomp.so.5", "libomp.so", "libiomp5.so"};
#endif

// Runtimes that a process may come to use in turn; the last one is kept.
constexpr int kMost = 4;

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

bool complete(void* library, OpenMPRuntime& found) {
  return find(library, "GOMP_parallel", found.parallel) &&
         find(library, "omp_get_thread_num", found.get_thread_num) &&
         find(library, "omp_get_num_threads", found.get_num_threads) &&
         find(library, "omp_get_max_threads", found.get_max_threads) &&
         find(library, "omp_get_thread_limit", found.get_thread_limit) &&
         find(library, "omp_get_num_procs", found.get_num_procs) &&
         find(library, "omp_get_num_places", found.get_num_places) &&
         find(library, "omp_get_place_num_procs", found.get_place_num_procs) &&
         find(library, "omp_in_parallel", found.in_parallel) &&
         find(library, "omp_pause_resource_all", found.pause_resource_all);
}

// A library stays as long as the process: threads of its pool run in it.
bool opened(const char* path, int mode, OpenMPRuntime& found) {
  void* library = dlopen(path, mode | RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) return false;
  if (complete(library, found)) return true;
  dlclose(library);
  return false;
}

// Whether a file is a runtime that a package has brought under a name of its own
// (libgomp-24e2ab19.so.1.0.0, libomp-b2a3c4.so).
bool named_as_runtime(const char* path) {
  const char* slash = std::strrchr(path, '/');
  const char* name = slash == nullptr ? path : slash + 1;
  for (const char* stem : {"libgomp", "libomp", "libiomp5"}) {
    const std::size_t length = std::strlen(stem);
    if (std::strncmp(name, stem, length) == 0 && std::strchr("-.", name[length]) != nullptr) {
      return true;
    }
  }
  return false;
}

#ifdef __APPLE__
unsigned long long libraries_loaded() { return _dyld_image_count(); }

bool first_loaded(OpenMPRuntime& found) {
  for (unsigned i = 0; i < _dyld_image_count(); ++i) {
    const char* path = _dyld_get_image_name(i);
    if (path != nullptr && named_as_runtime(path) && opened(path, RTLD_NOLOAD, found)) return true;
  }
  return false;
}
#else
// How many the process has loaded, those included that are gone.
unsigned long long libraries_loaded() {
  unsigned long long count = 0;
  const auto first = [](dl_phdr_info* info, std::size_t, void* result) {
    *static_cast<unsigned long long*>(result) = info->dlpi_adds;
    return 1;
  };
  dl_iterate_phdr(first, &count);
  return count;
}

bool first_loaded(OpenMPRuntime& found) {
  // Opened afterwards: in the visit the loader holds its lock.
  static char path[4096];
  path[0] = '\0';
  const auto visit = [](dl_phdr_info* info, std::size_t, void*) {
    const bool suits =
        std::strlen(info->dlpi_name) < sizeof path && named_as_runtime(info->dlpi_name);
    if (suits) std::strcpy(path, info->dlpi_name);
    return suits ? 1 : 0;
  };
  return dl_iterate_phdr(visit, nullptr) != 0 && opened(path, RTLD_NOLOAD, found);
}
#endif

// Final: under a name by which every library that is loaded later finds the same.
enum class Found { kNone, kUntilAnother, kFinal };

Found search(OpenMPRuntime& found) {
  for (const char* name : kNames) {
    if (opened(name, RTLD_NOLOAD, found)) return Found::kFinal;
  }
  if (first_loaded(found)) return Found::kUntilAnother;
  for (const char* name : kNames) {
    if (opened(name, 0, found)) return Found::kFinal;
  }
  return Found::kNone;
}

std::atomic<const OpenMPRuntime*> in_use{nullptr};
std::atomic<bool> is_final{false};
std::atomic<unsigned long long> loaded_when_searched{0};  // 0: never searched

void search_again() {
  static std::mutex mutex;
  static OpenMPRuntime runtimes[kMost];
  static int count = 0;
  // Not waited for: in a forked child, the thread that searches may be left behind in the parent.
  const std::unique_lock<std::mutex> locked(mutex, std::try_to_lock);
  if (!locked) return;
  const unsigned long long loaded = libraries_loaded();
  OpenMPRuntime found{};
  const Found how = search(found);
  const OpenMPRuntime* before = in_use.load();
  const bool same = before != nullptr && before->parallel == found.parallel;
  if (how != Found::kNone && !same && count < kMost) {
    runtimes[count] = found;
    in_use.store(&runtimes[count++]);
  }
  is_final.store(how == Found::kFinal || count == kMost);
  loaded_when_searched.store(loaded);
}

}  // namespace

const OpenMPRuntime* openmp_runtime() {
  if (!is_final.load(std::memory_order_acquire)) {
    if (loaded_when_searched.load() != libraries_loaded()) search_again();
  }
  return openmp_runtime_in_use();
}

const OpenMPRuntime* openmp_runtime_in_use() { return in_use.load(std::memory_order_acquire); }

}  // namespace numattn
