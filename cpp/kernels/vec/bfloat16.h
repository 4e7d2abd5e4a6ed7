// Pairs over AVX512-BF16: 16 lanes of two bfloat16, the even one in the low half.
//
// The unit takes subnormal elements for zero and rounds sums that are subnormal to zero, whatever
// the control register says; kernels that use it look out for such values themselves.
#pragma once

#include "avx512.h"

namespace numattn {
namespace {

struct Pairs {
  __m512i lanes;
};

inline Pairs load_pairs(const std::uint16_t* from) { return {_mm512_loadu_si512(from)}; }
inline void store_pairs(std::uint16_t* to, Pairs a) { _mm512_storeu_si512(to, a.lanes); }
// Not by _mm512_set1_epi32: on its result as an operand of the unit, clang 16 recurses until its
// stack is full.
inline Pairs broadcast_pair(const std::uint16_t* from) {
  std::int32_t pair;
  __builtin_memcpy(&pair, from, sizeof pair);
  return {_mm512_broadcastd_epi32(_mm_cvtsi32_si128(pair))};
}

// sum + a.even · b.even + a.odd · b.odd
inline Vec dot(Vec sum, Pairs a, Pairs b) {
  return {_mm512_dpbf16_ps(sum.lanes, (__m512bh)a.lanes, (__m512bh)b.lanes)};
}

inline Vec even_of(Pairs a) { return {_mm512_castsi512_ps(_mm512_slli_epi32(a.lanes, 16))}; }
inline Vec odd_of(Pairs a) {
  const __m512i high_half = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
  return {_mm512_castsi512_ps(_mm512_and_si512(a.lanes, high_half))};
}

// Both rounded to nearest even, NaN kept. The instruction puts one operand's lanes behind the
// other's; the permutation joins lane i of both.
inline Pairs round_to_pairs(Vec even, Vec odd) {
  alignas(64) static constexpr std::uint16_t kJoin[32] = {
      0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(odd.lanes, even.lanes);
  return {_mm512_permutexvar_epi16(_mm512_load_si512(kJoin), halves)};
}

// 32 elements side by side: those of both, rounded as above, subnormals to zero.
inline void store_rounded(std::uint16_t* to, Vec first, Vec second) {
  _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(second.lanes, first.lanes));
}

// While one lives, the thread rounds as the units do, whatever was set: to nearest even, subnormal
// operands and results as zero, no traps. Arithmetic under it belongs into a function of its own
// that is not inlined, or the compiler may move it out.
class UnitRounding {
 public:
  UnitRounding() : saved_(_mm_getcsr()) { _mm_setcsr(kUnitControl); }
  ~UnitRounding() { _mm_setcsr(saved_); }
  UnitRounding(const UnitRounding&) = delete;
  UnitRounding& operator=(const UnitRounding&) = delete;

 private:
  static constexpr unsigned kUnitControl = 0x1F80u | 0x0040u | 0x8000u;
  unsigned saved_;
};

// A pair as one 32-bit lane, to be moved about.
inline Vec as_lanes(Pairs a) { return {_mm512_castsi512_ps(a.lanes)}; }
inline Pairs as_pairs(Vec a) { return {_mm512_castps_si512(a.lanes)}; }

constexpr float kLargestBFloat16 = 0x1.FEp127f;

// Lanes that are at most kLargestBFloat16 in size, neither infinite nor NaN.
inline __mmask16 finite_lanes(Vec a) {
  return _mm512_cmp_ps_mask(abs(a).lanes, _mm512_set1_ps(kLargestBFloat16), _CMP_LE_OQ);
}
// Of these, the ones that are not subnormal.
inline __mmask16 ordinary_lanes(Vec a) {
  constexpr int kSubnormal = 0x20;
  return static_cast<__mmask16>(finite_lanes(a) & ~_mm512_fpclass_ps_mask(a.lanes, kSubnormal));
}

// The other lanes become 0.
inline Vec finite_or_zero(Vec a) { return {_mm512_maskz_mov_ps(finite_lanes(a), a.lanes)}; }
inline Vec ordinary_or_zero(Vec a) { return {_mm512_maskz_mov_ps(ordinary_lanes(a), a.lanes)}; }

inline bool all_ordinary(Vec a) { return ordinary_lanes(a) == 0xFFFF; }
inline bool is_ordinary(float a) {
  return a == 0.0f || (__builtin_isnormal(a) && __builtin_fabsf(a) <= kLargestBFloat16);
}

}  // namespace
}  // namespace numattn
