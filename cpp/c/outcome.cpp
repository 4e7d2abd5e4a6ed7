#include "outcome.h"

#include <cstdio>

namespace numattn::c {
namespace {

thread_local char last_error[1024] = "";

struct Asked {
  numattn_interrupt interrupt = nullptr;
  void* context = nullptr;
};
thread_local Asked asked;

bool ask() { return asked.interrupt(asked.context) != 0; }

}  // namespace

numattn_status failed(numattn_status status, const char* words) noexcept {
  std::snprintf(last_error, sizeof last_error, "%s", words);
  return status;
}

void refuse(const std::string& name, const std::string& what) {
  throw std::invalid_argument(name + " " + what);
}

Interruptible::Interruptible(numattn_interrupt interrupt, void* context) noexcept
    : outer_(asked.interrupt), outer_context_(asked.context) {
  asked = {interrupt, context};
}

Interruptible::~Interruptible() { asked = {outer_, outer_context_}; }

bool (*Interruptible::check() const)() { return asked.interrupt == nullptr ? nullptr : &ask; }

OnCallersThreads::OnCallersThreads(numattn_parallel parallel, void* context,
                                   numattn_interrupt interrupt)
    : threads_{parallel, context}, on_(parallel == nullptr ? nullptr : &threads_) {
  if (parallel != nullptr && interrupt != nullptr) {
    refuse("parallel", "cannot be given together with interrupt");
  }
}

numattn_status finished_or_interrupted(bool finished) noexcept {
  return finished ? NUMATTN_OK : failed(NUMATTN_INTERRUPTED, "interrupted by the caller");
}

}  // namespace numattn::c

extern "C" const char* numattn_last_error(void) { return numattn::c::last_error; }
