#include "interpreter.h"

#include <chrono>
#include <thread>

namespace numattn::bind {
namespace {

// Calls wait(), which takes the interpreter's lock. Up to Python 3.13 a daemon thread that does so
// while the interpreter ends is ended itself, by pthread_exit, which unwinds its stack: it would
// stop at the first function that must not throw, and with it the process, and before that give up
// objects of Python without the lock. So it gets no further than here, and sleeps for the little
// time that the process has left, as Python 3.14 has it do by itself.
template <class Wait>
auto or_sleep_for_ever(const Wait& wait) {
  try {
    return wait();
  } catch (...) {
    while (true) std::this_thread::sleep_for(std::chrono::hours(1));
  }
}

}  // namespace

bool in_main_interpreter() {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return true;
  PyErr_SetString(PyExc_ImportError,
                  "numattn works in the main interpreter alone, not in a sub-interpreter (those of "
                  "mod_wsgi without WSGIApplicationGroup %{GLOBAL}, of uWSGI without "
                  "single-interpreter, of concurrent.interpreters): use a process instead");
  return false;
}

bool interrupted() {
  return or_sleep_for_ever([] {
    const PyGILState_STATE before = PyGILState_Ensure();
    const bool raised = PyErr_CheckSignals() != 0;
    PyGILState_Release(before);
    return raised;
  });
}

Unlocked::~Unlocked() {
  or_sleep_for_ever([this] { PyEval_RestoreThread(state_); });
}

}  // namespace numattn::bind
