#include "interpreter.h"

#include <chrono>
#include <thread>

namespace numattn::bind {
namespace {

// Python's record of the calling thread, while that runs unlocked. Not asked of PyGILState_Ensure,
// which has forgotten it once the interpreter has ended, and would make a new one for none.
thread_local PyThreadState* unlocked_thread = nullptr;

// Calls work(), which takes the interpreter's lock. Up to Python 3.13 a daemon thread that does so
// while the interpreter ends is ended itself, by pthread_exit, which unwinds its stack: it would
// stop at the first function that must not throw, and with it the process, and before that give up
// objects of Python without the lock. So it gets no further than here, and sleeps for the little
// time that the process has left, as Python 3.14 has it do by itself.
template <class Work>
auto or_sleep_for_ever(const Work& work) {
  try {
    return work();
  } catch (...) {
    while (true) std::this_thread::sleep_for(std::chrono::hours(1));
  }
}

}  // namespace

const char* const kMainInterpreterOnly =
    "numattn works in the main interpreter alone, not in a sub-interpreter (those of mod_wsgi "
    "without WSGIApplicationGroup %{GLOBAL}, of uWSGI without single-interpreter, of "
    "concurrent.interpreters): use a process instead";

bool in_main_interpreter() { return PyInterpreterState_Get() == PyInterpreterState_Main(); }

bool interrupted() {
  return or_sleep_for_ever([] {
    PyEval_RestoreThread(unlocked_thread);
    const bool raised = PyErr_CheckSignals() != 0;
    unlocked_thread = PyEval_SaveThread();
    return raised;
  });
}

Unlocked::Unlocked() { unlocked_thread = PyEval_SaveThread(); }

Unlocked::~Unlocked() {
  or_sleep_for_ever([] { PyEval_RestoreThread(unlocked_thread); });
}

}  // namespace numattn::bind
