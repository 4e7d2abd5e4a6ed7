// What a call says at the boundary to C: a status, and the words of the last failure.
#pragma once

#include <new>
#include <stdexcept>
#include <string>

#include "numattn.h"
#include "numattn/threads.h"

namespace numattn::c {

// Keeps the words for numattn_last_error(), as many as fit, without taking memory.
numattn_status failed(numattn_status status, const char* words) noexcept;

// std::invalid_argument of `name` and what is wrong with it.
[[noreturn]] void refuse(const std::string& name, const std::string& what);

// Runs work(), which returns a status; an exception becomes one.
template <class Work>
numattn_status guarded(const Work& work) noexcept {
  try {
    return work();
  } catch (const std::invalid_argument& error) {
    return failed(NUMATTN_INVALID_ARGUMENT, error.what());
  } catch (const std::bad_alloc&) {
    return failed(NUMATTN_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return failed(NUMATTN_INTERNAL_ERROR, error.what());
  } catch (...) {
    return failed(NUMATTN_INTERNAL_ERROR, "an unknown exception");
  }
}

// A caller's own interrupt, while a call of this thread runs: the core asks the thread that called,
// by a function without a context.
class Interruptible {
 public:
  Interruptible(numattn_interrupt interrupt, void* context) noexcept;
  ~Interruptible();
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;

  // For the core; null where there is none to ask.
  bool (*check() const)();

 private:
  numattn_interrupt outer_;  // of a call around this one, made by an interrupt
  void* outer_context_;
};

// A caller's own threads, while a call of this thread runs. Refused beside an interrupt, which is
// asked by the thread that called: there may be none of its own among the caller's.
class OnCallersThreads {
 public:
  OnCallersThreads(numattn_parallel parallel, void* context, numattn_interrupt interrupt);

 private:
  HostThreads threads_;
  OnHostThreads on_;
};

// What a run of the core came to.
numattn_status finished_or_interrupted(bool finished) noexcept;

}  // namespace numattn::c
