// Pairs over AVX512-BF16: 16 lanes of two bfloat16, the even one in the low half.
//
// The unit takes subnormal elements for zero and rounds sums that are subnormal to zero, whatever
// the control register says; kernels that use it look out for such values themselves.
#pragma once

#include "avx512.h"
#include "bytes.h"
#include "float_control.h"

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

// A pair as one 32-bit lane, to be moved about.
inline Vec as_lanes(Pairs a) { return {_mm512_castsi512_ps(a.lanes)}; }
inline Pairs as_pairs(Vec a) { return {_mm512_castps_si512(a.lanes)}; }

constexpr float kLargestBFloat16 = 0x1.FEp127f;

// Lanes that are at most kLargestBFloat16 in size, neither infinite nor NaN.
inline __mmask16 finite_lanes(Vec a) {
  return _mm512_cmp_ps_mask(abs(a).lanes, _mm512_set1_ps(kLargestBFloat16), _CMP_LE_OQ);
}
// Of these, the ones that are 0 or large enough: of smaller values the unit would lose products
// with weights, or a low part's, as subnormal. A value that is just large enough has all its 24
// bits in products with weights from 2^-13 on, 2^-6 of a row's largest, and a share of 2^-17 in any
// above 2^-36.
constexpr float kSmallestOrdinary = 0x1p-90f;
inline __mmask16 ordinary_lanes(Vec a) {
  constexpr int kZero = 0x06;  // of either sign
  const __mmask16 large =
      _mm512_cmp_ps_mask(abs(a).lanes, _mm512_set1_ps(kSmallestOrdinary), _CMP_GE_OQ);
  return static_cast<__mmask16>(finite_lanes(a) & (large | _mm512_fpclass_ps_mask(a.lanes, kZero)));
}

// The other lanes become 0.
inline Vec finite_or_zero(Vec a) { return {_mm512_maskz_mov_ps(finite_lanes(a), a.lanes)}; }
inline Vec ordinary_or_zero(Vec a) { return {_mm512_maskz_mov_ps(ordinary_lanes(a), a.lanes)}; }

inline bool all_ordinary(Vec a) { return ordinary_lanes(a) == 0xFFFF; }
inline bool is_ordinary(float a) {
  const float size = __builtin_fabsf(a);
  return size == 0.0f || (kSmallestOrdinary <= size && size <= kLargestBFloat16);
}

// --- For the pipeline of the tile unit --------------------------------------------------------

inline __mmask32 first_elements(int count) {
  return count >= 32 ? ~__mmask32{0} : (__mmask32{1} << count) - 1;
}
// The first `count` elements; the others are 0 and not read, or not written.
inline Pairs load_pairs(const std::uint16_t* from, int count) {
  return {_mm512_maskz_loadu_epi16(first_elements(count), from)};
}
inline void store_pairs(std::uint16_t* to, Pairs a, int count) {
  _mm512_mask_storeu_epi16(to, first_elements(count), a.lanes);
}

// 32 elements in order, rounded to nearest even, NaN kept; subnormal ones become zero.
inline Pairs round_in_order(Vec first, Vec last) {
  return {(__m512i)_mm512_cvtne2ps_pbh(last.lanes, first.lanes)};
}
inline Vec first_half(Pairs a) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(a.lanes));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
inline Vec last_half(Pairs a) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(a.lanes, 1));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}

// Pair i = (element i of a, element i of b), of elements 0 to 15 and 16 to 31.
inline Pairs join_first_halves(Pairs a, Pairs b) {
  alignas(64) static constexpr std::uint16_t kJoin[32] = {
      0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
      8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  return {_mm512_permutex2var_epi16(a.lanes, _mm512_load_si512(kJoin), b.lanes)};
}
inline Pairs join_last_halves(Pairs a, Pairs b) {
  alignas(64) static constexpr std::uint16_t kJoin[32] = {
      16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
      24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63};
  return {_mm512_permutex2var_epi16(a.lanes, _mm512_load_si512(kJoin), b.lanes)};
}

// Elements that are infinite, NaN or subnormal become 0; `all` becomes false if there are any.
// Twice an element has no sign: 0 for zero, below kSmallest for a small one, from kNoNumber on for
// infinities and NaN; what is subtracted brings both ends of that together.
inline Pairs ordinary_or_zero(Pairs a, bool& all) {
  constexpr int kSmallest = (127 - 90) << 8;
  constexpr int kNoNumber = 0xFF00;
  const __m512i twice = _mm512_add_epi16(a.lanes, a.lanes);
  const __m512i moved = _mm512_sub_epi16(twice, _mm512_set1_epi16(kSmallest));
  const __mmask32 special =
      _mm512_mask_cmpge_epu16_mask(_mm512_test_epi16_mask(twice, twice), moved,
                                   _mm512_set1_epi16(static_cast<short>(kNoNumber - kSmallest)));
  all &= special == 0;
  return {_mm512_maskz_mov_epi16(~special, a.lanes)};
}

// The same vector, of which the compiler does not know that it is a constant: it would be made anew
// at every use.
inline Vec in_register(Vec a) {
  __asm__("" : "+v"(a.lanes));
  return a;
}

inline Vec high_half(Vec a) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
  return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a.lanes), high))};
}

// Two vectors of weights as pairs: half of the last place is added, and high halves are joined side
// by side, by one shuffle of bytes.
class HalfUp {
 public:
  HalfUp()
      : half_(_mm512_set1_epi32(0x8000)),
        high_to_low_(_mm512_broadcast_i32x4(
            _mm_setr_epi8(2, 3, 0, 0, 6, 7, 0, 0, 10, 11, 0, 0, 14, 15, 0, 0))) {
    __asm__("" : "+v"(half_), "+v"(high_to_low_));
  }
  Vec added_to(Vec a) const {
    return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a.lanes), half_))};
  }
  Pairs join(Vec even, Vec odd) const {
    return {_mm512_mask_shuffle_epi8(_mm512_castps_si512(odd.lanes), 0x3333333333333333u,
                                     _mm512_castps_si512(even.lanes), high_to_low_)};
  }

 private:
  __m512i half_;
  __m512i high_to_low_;
};
inline Pairs operator|(Pairs a, Pairs b) { return {_mm512_or_si512(a.lanes, b.lanes)}; }
inline Pairs no_pairs() { return {_mm512_setzero_si512()}; }
// Whether the top bit of an exponent is set: numbers from 2 on, infinities, NaN.
inline bool any_from_two(Pairs a) {
  return _mm512_test_epi16_mask(a.lanes, _mm512_set1_epi16(0x4000)) != 0;
}

// a · 2^floor(x), and 0 where not allowed.
inline Vec scale_by_floor(Mask allowed, Vec a, Vec x) {
  return {_mm512_maskz_scalef_ps(allowed.bits, a.lanes, x.lanes)};
}
inline bool any_subnormal(Vec a) {
  constexpr int kSubnormal = 0x20;
  return _mm512_fpclass_ps_mask(a.lanes, kSubnormal) != 0;
}

// Lane i = the largest lane of rows[i]: halves, quarters, pairs and single lanes of all sixteen are
// compared side by side.
inline Vec max_of_each(Vec (&rows)[16]) {
  const auto larger = [](__m512 a, __m512 b) { return _mm512_max_ps(a, b); };
  __m512 m[16];
  for (int i = 0; i < 16; ++i) m[i] = rows[i].lanes;
  for (int i = 0; i < 8; ++i) {
    m[i] = larger(_mm512_shuffle_f32x4(m[i], m[i + 8], 0x44),
                  _mm512_shuffle_f32x4(m[i], m[i + 8], 0xEE));
  }
  for (int i = 0; i < 4; ++i) {
    m[i] = larger(_mm512_shuffle_f32x4(m[i], m[i + 4], 0x88),
                  _mm512_shuffle_f32x4(m[i], m[i + 4], 0xDD));
  }
  for (int i = 0; i < 2; ++i) {
    m[i] = larger(_mm512_unpacklo_ps(m[i], m[i + 2]), _mm512_unpackhi_ps(m[i], m[i + 2]));
  }
  const __m512 all = larger(_mm512_unpacklo_ps(m[0], m[1]), _mm512_unpackhi_ps(m[0], m[1]));
  const __m512i order = _mm512_setr_epi32(0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15);
  return {_mm512_permutexvar_ps(order, all)};
}

}  // namespace
}  // namespace numattn
