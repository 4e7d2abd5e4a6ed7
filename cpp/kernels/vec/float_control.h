// The thread's control of floating point, held for a while: MXCSR, which lanes of AVX-512 and lanes
// in software obey alike.
#pragma once

#include <xmmintrin.h>

namespace numattn {
namespace {

constexpr unsigned kSubnormalsAsZero = 0x8040;  // results flushed, operands taken for zero

// As it was, in the end.
class HeldControl {
 public:
  HeldControl(const HeldControl&) = delete;
  HeldControl& operator=(const HeldControl&) = delete;

 protected:
  HeldControl() : before_(_mm_getcsr()) {}
  ~HeldControl() { _mm_setcsr(before_); }

  const unsigned before_;
};

// While one lives, the thread rounds as the units do, whatever was set: to nearest even, subnormal
// operands and results as zero, no traps. Arithmetic under it belongs into a function of its own
// that is not inlined, or the compiler may move it out.
class UnitRounding : HeldControl {
 public:
  UnitRounding() { _mm_setcsr(kNoTraps | kSubnormalsAsZero); }

 private:
  static constexpr unsigned kNoTraps = 0x1F80;
};

// While one lives, the thread takes subnormal operands for zero and makes no subnormal results. A
// weight that is subnormal would cost some 150 cycles.
class SubnormalsAsZero : HeldControl {
 public:
  SubnormalsAsZero() { _mm_setcsr(before_ | kSubnormalsAsZero); }

  // What call() computes with subnormals as they were before.
  template <class Call>
  void lifted(const Call& call) const {
    _mm_setcsr(before_);
    call();
    _mm_setcsr(before_ | kSubnormalsAsZero);
  }
};

}  // namespace
}  // namespace numattn
