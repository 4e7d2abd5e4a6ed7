#include "steps.h"

#include <chrono>

#include "interpreter.h"

namespace numattn::bind {
namespace {

// Each work asks whether to stop every so often, and the many that take less time never do.
constexpr std::chrono::milliseconds kAskEvery{20};

bool run_in_turn(const std::vector<std::function<bool()>>& works) {
  using Clock = std::chrono::steady_clock;
  Clock::time_point asked = Clock::now();
  for (const std::function<bool()>& work : works) {
    if (!work()) return false;
    const Clock::time_point now = Clock::now();
    if (now - asked < kAskEvery) continue;
    asked = now;
    if (interrupted()) return false;
  }
  return true;
}

}  // namespace

void Steps::run() {
  const std::vector<std::function<bool()>> works = std::exchange(works_, {});
  const std::vector<py::object> kept = std::exchange(kept_, {});
  run_unlocked([&] { return run_in_turn(works); });
}

void bind_steps(py::module_& module) {
  py::class_<Steps>(module, "Steps").def(py::init<int>()).def("run", &Steps::run);
}

}  // namespace numattn::bind
