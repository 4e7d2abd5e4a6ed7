// How many threads a call's loop has, beside those of other calls and of its thread's last loops.
#pragma once

#include "openmp_runtime.h"

namespace numattn {

// A loop at work, for as long as this lives. Where several threads of a program call at once, each
// with as many threads as there are processors, these get in one another's way; so each call has
// its share, until its thread has met no other call for a while.
class AtWork {
 public:
  AtWork();
  ~AtWork();
  AtWork(const AtWork&) = delete;
  AtWork& operator=(const AtWork&) = delete;

  // Of `threads`, at least one, as many as this loop is to have.
  int share(int threads) const;

 private:
  int others_;  // loops that were at work when this one began
};

// The number of threads of a parallel region of which `workers` are to work, as far as there are so
// many: those beyond are left from the calling thread's last region. libgomp has just that region's
// threads ready, and ends all that a smaller one does not take, so that they must be made anew for
// the next large one. Such are kept for a while.
int region_threads(const OpenMPRuntime& openmp, int workers);

// What the region had; the calling thread itself is among them.
void had_region_threads(int threads);

}  // namespace numattn
