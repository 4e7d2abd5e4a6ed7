// The Python interpreter around a computation: its lock and its signals.
#pragma once

#include <pybind11/pybind11.h>

namespace numattn::bind {

namespace py = pybind11;

// A sub-interpreter is no place for this module, and what it says there.
bool in_main_interpreter();
extern const char* const kMainInterpreterOnly;

// True where Python has a pending signal whose handler raised; the error is then set. For a thread
// that runs unlocked.
bool interrupted();

// The interpreter's lock, let go for as long as this lives.
class Unlocked {
 public:
  Unlocked();
  ~Unlocked();
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;
};

// Runs work() without the interpreter's lock; false from it raises the pending error.
template <class Work>
void run_unlocked(const Work& work) {
  bool finished = false;
  {
    const Unlocked unlocked;
    finished = work();
  }
  if (!finished) throw py::error_already_set();
}

}  // namespace numattn::bind
