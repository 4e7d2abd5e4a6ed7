// Vec over NEON of 64-bit ARM: 4 float32 lanes. Operations as defined in vec/scalar.h.
//
// Written for what the architecture guarantees and held to vec/scalar.h in an emulator; never timed
// on a processor.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "numattn/dtype.h"

namespace numattn {
namespace {

struct Mask {
  uint32x4_t lanes;
};

struct Vec {
  static constexpr int kWidth = 4;
  // The register tile of tile.h, and keys per tile (table.h): of 32 registers 24 for sums, four for
  // a cache line of b and one for a, which is ten loads for 24 products; 8 × 3 would take eleven.
  static constexpr int kTileRows = 6;
  static constexpr int kTileVectors = 4;
  static constexpr int kKeyBlock = 96;
  float32x4_t lanes;
};

inline Vec broadcast(float value) { return {vdupq_n_f32(value)}; }
inline Vec zero() { return broadcast(0.0f); }
inline Vec load(const float* from) { return {vld1q_f32(from)}; }
inline void store(float* to, Vec a) { vst1q_f32(to, a.lanes); }
inline Vec load_partial(const float* from, int count) {
  float four[4] = {};
  for (int i = 0; i < count; ++i) four[i] = from[i];
  return load(four);
}
inline void store_partial(float* to, Vec a, int count) {
  float four[4];
  store(four, a);
  for (int i = 0; i < count; ++i) to[i] = four[i];
}

inline Vec operator+(Vec a, Vec b) { return {vaddq_f32(a.lanes, b.lanes)}; }
inline Vec operator-(Vec a, Vec b) { return {vsubq_f32(a.lanes, b.lanes)}; }
inline Vec operator*(Vec a, Vec b) { return {vmulq_f32(a.lanes, b.lanes)}; }
inline Vec operator/(Vec a, Vec b) { return {vdivq_f32(a.lanes, b.lanes)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.lanes, a.lanes, b.lanes)}; }
inline Vec negated_fma(Vec a, Vec b, Vec c) { return {vfmsq_f32(c.lanes, a.lanes, b.lanes)}; }
inline void add_product(Vec& sum, Vec a, Vec b) { sum = fma(a, b, sum); }

inline Mask less(Vec a, Vec b) { return {vcltq_f32(a.lanes, b.lanes)}; }
inline Mask less_equal(Vec a, Vec b) { return {vcleq_f32(a.lanes, b.lanes)}; }
inline Mask equal(Vec a, Vec b) { return {vceqq_f32(a.lanes, b.lanes)}; }
inline Mask operator&(Mask a, Mask b) { return {vandq_u32(a.lanes, b.lanes)}; }
inline bool any(Mask a) { return vmaxvq_u32(a.lanes) != 0; }
inline Vec select(Mask mask, Vec a, Vec b) { return {vbslq_f32(mask.lanes, a.lanes, b.lanes)}; }
// Not by vmaxq_f32, which has a NaN wherever one operand does.
inline Vec max(Vec a, Vec b) { return select(less(b, a), a, b); }
inline Vec min(Vec a, Vec b) { return select(less(a, b), a, b); }
inline Vec abs(Vec a) { return {vabsq_f32(a.lanes)}; }
inline Vec round(Vec a) { return {vrndnq_f32(a.lanes)}; }
// 2^x rounds to zero below 2^-150; the limit keeps −inf − floor(−inf) from making a NaN, and is so
// low that −inf is multiplied by zero (vec/avx2.h). A NaN of x is kept by vmaxq_f32 too.
inline Vec limited_power(Vec x) { return {vmaxq_f32(vdupq_n_f32(-254.0f), x.lanes)}; }
inline Vec fraction(Vec x) {
  const Vec power = limited_power(x);
  return power - Vec{vrndmq_f32(power.lanes)};
}
// In two halves, so that a result below 2^-126 is a subnormal and not zero.
inline Vec scale_by_floor(Vec a, Vec x) {
  const int32x4_t whole = vcvtmq_s32_f32(limited_power(x).lanes);
  const int32x4_t half = vshrq_n_s32(whole, 1);
  const auto power = [](int32x4_t exponent) {
    return Vec{vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(exponent, vdupq_n_s32(127)), 23))};
  };
  return a * power(half) * power(vsubq_s32(whole, half));
}

inline Vec swap_pairs(Vec a) { return {vrev64q_f32(a.lanes)}; }

// (0 + 1) + (2 + 3), of one and of eight.
inline float reduce_add(Vec a) { return vaddvq_f32(a.lanes); }
inline float reduce_max(Vec a) { return vmaxvq_f32(a.lanes); }
inline void reduce_add(const Vec (&a)[8], float* sums) {
  for (int i = 0; i < 8; i += 4) {
    const float32x4_t low = vpaddq_f32(a[i].lanes, a[i + 1].lanes);
    const float32x4_t high = vpaddq_f32(a[i + 2].lanes, a[i + 3].lanes);
    vst1q_f32(sums + i, vpaddq_f32(low, high));
  }
}

// Four bytes, and no more, as eight of which the first four count.
inline uint8x8_t four_bytes(const void* from) {
  std::uint32_t bytes;
  __builtin_memcpy(&bytes, from, sizeof bytes);
  return vcreate_u8(bytes);
}

inline Vec load(const Float16* from) {
  return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&from->bits)))};
}
inline void store(Float16* to, Vec a) {
  vst1_u16(&to->bits, vreinterpret_u16_f16(vcvt_f16_f32(a.lanes)));
}
inline Vec load(const BFloat16* from) {
  return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&from->bits), 16))};
}
inline void store(BFloat16* to, Vec a) {
#ifdef __ARM_FEATURE_BF16_VECTOR_ARITHMETIC
  vst1_u16(&to->bits, vreinterpret_u16_bf16(vcvt_bf16_f32(a.lanes)));
#else
  const uint32x4_t bits = vreinterpretq_u32_f32(a.lanes);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7FFF)));
  const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
  const uint32x4_t kept = vbslq_u32(equal(a, a).lanes, rounded, quiet);
  vst1_u16(&to->bits, vshrn_n_u32(kept, 16));
#endif
}
inline uint32x4_t load_bytes(const std::uint8_t* from) {
  std::uint32_t four;
  __builtin_memcpy(&four, from, sizeof four);
  const uint8x8_t bytes = vreinterpret_u8_u32(vdup_n_u32(four));
  return vmovl_u16(vget_low_u16(vmovl_u8(bytes)));
}
inline Vec load_low_nibbles(const std::uint8_t* from) {
  return {vcvtq_f32_u32(vandq_u32(load_bytes(from), vdupq_n_u32(15)))};
}
inline Vec load_high_nibbles(const std::uint8_t* from) {
  return {vcvtq_f32_u32(vshrq_n_u32(load_bytes(from), 4))};
}
inline Vec load(const Int8* from) {
  const int8x8_t bytes = vreinterpret_s8_u8(four_bytes(from));
  return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))};
}
inline Vec load(const Bool* from) {
  const uint16x4_t flags = vget_low_u16(vmovl_u8(four_bytes(from)));
  const Mask zeros{vceqzq_u32(vmovl_u16(flags))};
  return select(zeros, zero(), broadcast(1.0f));
}
inline Vec even_half(const std::uint16_t* from) {
  const uint32x4_t pairs = vreinterpretq_u32_u16(vld1q_u16(from));
  return {vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16))};
}
// From an address that the compiler does not know to be that of an even half: it would load both at
// once and, in the loop of PairPanelOperands (float_panels.h), keep sums in memory.
inline Vec odd_half(const std::uint16_t* from) {
  __asm__("" : "+r"(from));
  const uint32x4_t pairs = vreinterpretq_u32_u16(vld1q_u16(from));
  return {vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xFFFF0000u)))};
}

inline Mask mask_from_bits(std::uint16_t bits) {
  constexpr std::uint32_t kLane[4] = {1, 2, 4, 8};
  return {vtstq_u32(vdupq_n_u32(bits), vld1q_u32(kLane))};
}
// Byte i of a register keeps bit i % 8 where it is not 0; sums of neighbours join eight to a byte.
inline std::uint64_t nonzero_bits(const std::uint8_t* from, int count) {
  constexpr std::uint8_t kBit[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  std::uint8_t bytes[64] = {};
  if (count < 64) {
    __builtin_memcpy(bytes, from, static_cast<std::size_t>(count));
    from = bytes;
  }
  const uint8x16_t bit = vld1q_u8(kBit);
  const auto quarter = [from, bit](int first) {
    const uint8x16_t read = vld1q_u8(from + first);
    return vandq_u8(vtstq_u8(read, read), bit);
  };
  const uint8x16_t low = vpaddq_u8(quarter(0), quarter(16));
  const uint8x16_t high = vpaddq_u8(quarter(32), quarter(48));
  const uint8x16_t halves = vpaddq_u8(low, high);
  return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(halves, halves)), 0);
}
// Byte g of a row, which holds bits 8g to 8g + 7, in eight lanes, of which each tests its own.
inline void transpose_bits(const std::uint64_t (&rows)[4], std::uint16_t* columns) {
  constexpr std::uint16_t kBit[8] = {1, 2, 4, 8, 16, 32, 64, 128};
  const uint16x8_t bit = vld1q_u16(kBit);
  for (int first = 0; first < 64; first += 8) {
    uint16x8_t column = vdupq_n_u16(0);
    for (int i = 0; i < 4; ++i) {
      const auto byte = static_cast<std::uint16_t>(rows[i] >> first & 0xFF);
      const uint16x8_t set = vtstq_u16(vdupq_n_u16(byte), bit);
      column = vorrq_u16(column, vandq_u16(set, vdupq_n_u16(static_cast<std::uint16_t>(1 << i))));
    }
    vst1q_u16(columns + first, column);
  }
}

// Products of neighbours side by side, joined when they are stored: two instructions for a dot(),
// where joining them at once would take four.
struct Ints {
  int32x4_t low;
  int32x4_t high;
};
struct Shorts {
  int16x8_t lanes;
};

inline void store_rounded(std::int16_t* to, Vec a) {
  vst1_s16(to, vmovn_s32(vcvtnq_s32_f32(a.lanes)));
}
inline Shorts widen(const std::int8_t* from) { return {vmovl_s8(vld1_s8(from))}; }
inline Shorts repeat_four(const std::int16_t* from) {
  const int16x4_t four = vld1_s16(from);
  return {vcombine_s16(four, four)};
}
inline Ints no_sums() { return {vdupq_n_s32(0), vdupq_n_s32(0)}; }
inline Ints dot(Ints sum, Shorts a, Shorts b) {
  return {vmlal_s16(sum.low, vget_low_s16(a.lanes), vget_low_s16(b.lanes)),
          vmlal_high_s16(sum.high, a.lanes, b.lanes)};
}
inline void store(std::int32_t* to, Ints a) { vst1q_s32(to, vpaddq_s32(a.low, a.high)); }

// rows[i][j] ↔ rows[j][i]: first pairs, then halves.
inline void transpose(Vec (&rows)[4]) {
  const auto pairs = [](float32x4_t a) { return vreinterpretq_f64_f32(a); };
  const auto lanes = [](float64x2_t a) { return Vec{vreinterpretq_f32_f64(a)}; };
  const float64x2_t low_even = pairs(vtrn1q_f32(rows[0].lanes, rows[1].lanes));
  const float64x2_t low_odd = pairs(vtrn2q_f32(rows[0].lanes, rows[1].lanes));
  const float64x2_t high_even = pairs(vtrn1q_f32(rows[2].lanes, rows[3].lanes));
  const float64x2_t high_odd = pairs(vtrn2q_f32(rows[2].lanes, rows[3].lanes));
  rows[0] = lanes(vtrn1q_f64(low_even, high_even));
  rows[1] = lanes(vtrn1q_f64(low_odd, high_odd));
  rows[2] = lanes(vtrn2q_f64(low_even, high_even));
  rows[3] = lanes(vtrn2q_f64(low_odd, high_odd));
}

}  // namespace
}  // namespace numattn
