// Whose threads run the loops of the calling thread, where they are not the library's to choose.
#include "numattn/threads.h"

namespace numattn {
namespace {

thread_local const HostThreads* own = nullptr;

}  // namespace

OnHostThreads::OnHostThreads(const HostThreads* threads) noexcept : outer_(own) {
  if (threads != nullptr) own = threads;
}

OnHostThreads::~OnHostThreads() { own = outer_; }

const HostThreads* host_threads() { return own; }

}  // namespace numattn
