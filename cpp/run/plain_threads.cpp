#include "plain_threads.h"

#include <pthread.h>

#include <cstddef>
#include <memory>
#include <new>

namespace numattn {
namespace {

struct Part {
  void (*run)(const void* argument, int index);
  const void* argument;
  int index;
  pthread_t thread;
};

void* start(void* erased) {
  const Part& part = *static_cast<const Part*>(erased);
  part.run(part.argument, part.index);
  return nullptr;
}

}  // namespace

void run_on_plain_threads(int threads, void (*part)(const void* argument, int index),
                          const void* argument) {
  const auto others = static_cast<std::size_t>(threads - 1);
  const std::unique_ptr<Part[]> parts(new (std::nothrow) Part[others]);
  std::size_t started = 0;
  for (; parts != nullptr && started < others; ++started) {
    Part& next = parts[started];
    next = {part, argument, static_cast<int>(started) + 1, {}};
    if (pthread_create(&next.thread, nullptr, start, &next) != 0) break;
  }
  part(argument, 0);
  for (std::size_t i = 0; i < started; ++i) pthread_join(parts[i].thread, nullptr);
}

}  // namespace numattn
