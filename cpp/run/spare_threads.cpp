#include "spare_threads.h"

#include <pthread.h>
#ifdef __linux__
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <condition_variable>
#include <cstddef>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <new>

namespace numattn {
namespace {

// libgomp allocates some 2 KiB when it makes a team, and 200 bytes for each thread: less than this
// many visitors and one for each.
constexpr std::size_t kTeamVisitors = 16;
constexpr std::size_t kVisitorBytes = 1024;

// "512k", "4 M": a number and a unit, KiB where there is none; 0 for anything else.
std::size_t stack_bytes(const char* text) {
  char* end = nullptr;
  const unsigned long long number = std::strtoull(text, &end, 10);
  if (end == text) return 0;
  while (*end == ' ') ++end;
  const char unit = *end;
  const bool bytes = unit == 'B' || unit == 'b';
  const bool mebibytes = unit == 'M' || unit == 'm';
  const bool gibibytes = unit == 'G' || unit == 'g';
  return number << (bytes ? 0 : mebibytes ? 20 : gibibytes ? 30 : 10);
}

// The stack that OpenMP gives its threads, 0 for the system's default. OpenMP reads the environment
// once, when it is loaded, and this soon after.
std::size_t openmp_stack_bytes() {
  static const std::size_t bytes = [] {
    for (const char* name : {"OMP_STACKSIZE", "GOMP_STACKSIZE"}) {
      const char* text = std::getenv(name);
      if (text != nullptr && stack_bytes(text) > 0) return stack_bytes(text);
    }
    return std::size_t{0};
  }();
  return bytes;
}

// Keeps threads until all are there.
class Gate {
 public:
  void open() {
    {
      const std::lock_guard<std::mutex> locked(mutex_);
      is_open_ = true;
    }
    opened_.notify_all();
  }
  void pass() {
    std::unique_lock<std::mutex> locked(mutex_);
    opened_.wait(locked, [this] { return is_open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool is_open_ = false;
};

class Visitor {
 public:
  bool start(Gate& gate, const pthread_attr_t& attributes) {
    gate_ = &gate;
    return pthread_create(&thread_, &attributes, &visit, this) == 0;
  }
  // A limit on threads counts one until it has left the system's table, which may be after it was
  // joined: 3 of 60,000 times, two more could not be started at once where two were allowed.
  void join() {
    pthread_join(thread_, nullptr);
#ifdef __linux__
    const auto exists = [this] { return syscall(SYS_tgkill, getpid(), id_, 0) == 0; };
    // Bounded, since the number may be another thread's by then.
    for (int tries = 0; tries < 10000 && exists(); ++tries) sched_yield();
#endif
  }

 private:
  static void* visit(void* visitor) {
    auto& self = *static_cast<Visitor*>(visitor);
#ifdef __linux__
    self.id_ = syscall(SYS_gettid);
#endif
    self.gate_->pass();
    return nullptr;
  }

  Gate* gate_ = nullptr;
  pthread_t thread_{};
#ifdef __linux__
  long id_ = 0;
#endif
  [[maybe_unused]] char room_[kVisitorBytes];  // for OpenMP, later
};

int started_and_joined(int wanted, Visitor* visitors) {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return 0;
  // One that the system refuses is left out, as OpenMP does.
  if (openmp_stack_bytes() > 0) pthread_attr_setstacksize(&attributes, openmp_stack_bytes());
  Gate gate;
  int started = 0;
  while (started < wanted && visitors[started].start(gate, attributes)) ++started;
  pthread_attr_destroy(&attributes);
  gate.open();
  for (int i = 0; i < started; ++i) visitors[i].join();
  return started;
}

}  // namespace

int spare_threads(int wanted) {
  const auto count = static_cast<std::size_t>(wanted);
  const std::unique_ptr<Visitor[]> visitors(new (std::nothrow) Visitor[kTeamVisitors + count]);
  return visitors == nullptr ? -1 : started_and_joined(wanted, visitors.get());
}

}  // namespace numattn
