// Pairs over the BF16 instructions of 64-bit ARM: 4 lanes of two bfloat16, the even one in the low
// half.
//
// The unit takes subnormal elements for zero and rounds sums that are subnormal to zero, whatever
// the control register says; kernels that use it look out for such values themselves. A step of it
// rounds twice, to odd: the sum of a pair's products, and that added to the sum so far. The one
// exception are processors with FEAT_EBF16, once a program has set FPCR.EBF: nothing here does.
#pragma once

#include "neon.h"

namespace numattn {
namespace {

struct Pairs {
  uint16x8_t elements;
};

inline Pairs load_pairs(const std::uint16_t* from) { return {vld1q_u16(from)}; }
inline void store_pairs(std::uint16_t* to, Pairs a) { vst1q_u16(to, a.elements); }

// Four elements of one row and four of another.
inline Pairs join_rows(const std::uint16_t* first, const std::uint16_t* second) {
  return {vcombine_u16(vld1_u16(first), vld1_u16(second))};
}
// a: pairs of four columns, b: the pairs that follow along the depth → four elements of each of the
// first two columns, or of the last two.
inline Pairs first_columns(Pairs a, Pairs b) {
  return {vreinterpretq_u16_u32(
      vzip1q_u32(vreinterpretq_u32_u16(a.elements), vreinterpretq_u32_u16(b.elements)))};
}
inline Pairs last_columns(Pairs a, Pairs b) {
  return {vreinterpretq_u16_u32(
      vzip2q_u32(vreinterpretq_u32_u16(a.elements), vreinterpretq_u32_u16(b.elements)))};
}
// Two rows' sums of two columns, (row 0: column 0, column 1; row 1: likewise), and four elements of
// the depth: sum + row[0..1] · column[0..1], then + row[2..3] · column[2..3].
inline Vec multiply_four(Vec sum, Pairs rows, Pairs columns) {
  return {vbfmmlaq_f32(sum.lanes, vreinterpretq_bf16_u16(rows.elements),
                       vreinterpretq_bf16_u16(columns.elements))};
}
// Such sums of columns 0 and 1 and of columns 2 and 3 → the four of the first or the second row.
inline Vec first_row(Vec low, Vec high) {
  return {vreinterpretq_f32_f64(
      vzip1q_f64(vreinterpretq_f64_f32(low.lanes), vreinterpretq_f64_f32(high.lanes)))};
}
inline Vec second_row(Vec low, Vec high) {
  return {vreinterpretq_f32_f64(
      vzip2q_f64(vreinterpretq_f64_f32(low.lanes), vreinterpretq_f64_f32(high.lanes)))};
}

inline Vec even_of(Pairs a) {
  return {vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u16(a.elements), 16))};
}
inline Vec odd_of(Pairs a) {
  const uint32x4_t high_half = vdupq_n_u32(0xFFFF0000u);
  return {vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u16(a.elements), high_half))};
}

// Both rounded to nearest even, NaN kept.
inline Pairs round_to_pairs(Vec even, Vec odd) {
  const auto rounded = [](Vec a) { return vreinterpretq_u16_bf16(vcvtq_low_bf16_f32(a.lanes)); };
  return {vzip1q_u16(rounded(even), rounded(odd))};
}

// A pair as one 32-bit lane, to be moved about.
inline Vec as_lanes(Pairs a) { return {vreinterpretq_f32_u16(a.elements)}; }
inline Pairs as_pairs(Vec a) { return {vreinterpretq_u16_f32(a.lanes)}; }

// Pair i = (element i of a, element i of b), of the first half of the elements and of the last.
inline Pairs join_first_halves(Pairs a, Pairs b) { return {vzip1q_u16(a.elements, b.elements)}; }
inline Pairs join_last_halves(Pairs a, Pairs b) { return {vzip2q_u16(a.elements, b.elements)}; }

constexpr float kLargestBFloat16 = 0x1.FEp127f;
// Of smaller values the unit would lose products, as those of vec/bfloat16.h would.
constexpr float kSmallestOrdinary = 0x1p-90f;

// Lanes that are at most kLargestBFloat16 in size, neither infinite nor NaN.
inline Mask finite_lanes(Vec a) { return less_equal(abs(a), broadcast(kLargestBFloat16)); }
// Of these, the ones that are 0 or large enough.
inline Mask ordinary_lanes(Vec a) {
  const uint32x4_t large = vcgeq_f32(abs(a).lanes, vdupq_n_f32(kSmallestOrdinary));
  return finite_lanes(a) & Mask{vorrq_u32(large, vceqzq_f32(a.lanes))};
}

// The other lanes become 0.
inline Vec finite_or_zero(Vec a) { return select(finite_lanes(a), a, zero()); }
inline Vec ordinary_or_zero(Vec a) { return select(ordinary_lanes(a), a, zero()); }

// Elements that are infinite, NaN or too small become 0; `all` becomes false if there are any.
// Twice an element has no sign: 0 for zero.
inline Pairs ordinary_or_zero(Pairs a, bool& all) {
  const uint16x8_t twice = vaddq_u16(a.elements, a.elements);
  const uint16x8_t large = vcgeq_u16(twice, vdupq_n_u16((127 - 90) << 8));
  const uint16x8_t number = vcltq_u16(twice, vdupq_n_u16(0xFF00));
  const uint16x8_t ordinary = vorrq_u16(vandq_u16(large, number), vceqzq_u16(twice));
  all &= vminvq_u16(ordinary) != 0;
  return {vandq_u16(a.elements, ordinary)};
}

inline bool all_ordinary(Vec a) { return vminvq_u32(ordinary_lanes(a).lanes) != 0; }
inline bool is_ordinary(float a) {
  const float size = __builtin_fabsf(a);
  return size == 0.0f || (kSmallestOrdinary <= size && size <= kLargestBFloat16);
}

}  // namespace
}  // namespace numattn
