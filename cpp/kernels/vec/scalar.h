// Vec in portable C++ (GCC and clang vector extensions): 4 float32 lanes, which the compiler lowers
// to whatever the baseline has. This file defines what each operation means; the others equal it.
//
//   max(a, b), min(a, b)   b where a lane is NaN in either: write max(bound, x) to keep x's NaN
//   fma(a, b, c)           a · b + c, rounded once where the processor can
//   negated_fma(a, b, c)   c − a · b, likewise
//   fraction(x)            x − floor(x); 0 for −inf, NaN for NaN
//   scale_by_floor(a, x)   a · 2^floor(x) for x < 127, rounded once, subnormals kept, 0 far below
//   load_partial(p, n)     the first n < kWidth lanes, the others 0; never touches p[n] and beyond
//   any(m)                 whether a lane is set
//   swap_pairs(a)          lane 2i ↔ lane 2i + 1
//   load(p), store(p, a)    elements of any type as float32 (a flag 0 or 1), results rounded
//   load_low_nibbles(p), load_high_nibbles(p)  lane i from the lower, upper four bits of byte p[i]
//   even_half(p)           lane i from the bfloat16 p[2i], odd_half(p) from p[2i + 1]
//   add_product(sum, a, b) sum = fma(a, b, sum), in the register of sum
//   reduce_add(a, sums)    sums[i] = the sum of a[i]'s lanes, in one order for all eight
//   nonzero_bits(p, n)     bit i set where byte i of the first n <= 64 is not 0
//   mask_from_bits(b)      lane i from bit i
//   transpose(rows)        rows[i][j] ↔ rows[j][i]
//   transpose_bits(r, c)   bit i of c[j] = bit j of r[i], kWidth rows and 64 columns
//
// and on 2 · kWidth integers of 16 bits (Shorts) and kWidth of 32 (Ints):
//
//   store_rounded(p, a)    p[i] = the integer nearest to lane i, ties to even; |lane| < 2^15
//   widen(p)               2 · kWidth integers of 8 bits
//   repeat_four(p)         p[0] … p[3], over and over
//   store(p, a)            Ints as they are
//   dot(sum, a, b)         lane i of sum + a[2i] · b[2i] + a[2i + 1] · b[2i + 1], modulo 2^32
#pragma once

#include <cstdint>

#include "numattn/dtype.h"

namespace numattn {
namespace {

typedef float FourFloats __attribute__((vector_size(16)));
typedef std::int32_t FourInts __attribute__((vector_size(16)));

struct Mask {
  FourInts lanes;
};

struct Vec {
  static constexpr int kWidth = 4;
  // The register tile of tile.h, and keys per tile (table.h).
  static constexpr int kTileRows = 6;
  static constexpr int kTileVectors = 2;
  static constexpr int kKeyBlock = 96;
  FourFloats lanes;
};

inline Vec broadcast(float value) { return {FourFloats{value, value, value, value}}; }
inline Vec zero() { return broadcast(0.0f); }
inline Vec load(const float* from) {
  Vec a;
  __builtin_memcpy(&a.lanes, from, sizeof a.lanes);
  return a;
}
inline void store(float* to, Vec a) { __builtin_memcpy(to, &a.lanes, sizeof a.lanes); }
inline Vec load_partial(const float* from, int count) {
  Vec a = zero();
  for (int i = 0; i < count; ++i) a.lanes[i] = from[i];
  return a;
}
inline void store_partial(float* to, Vec a, int count) {
  for (int i = 0; i < count; ++i) to[i] = a.lanes[i];
}

inline Vec operator+(Vec a, Vec b) { return {a.lanes + b.lanes}; }
inline Vec operator-(Vec a, Vec b) { return {a.lanes - b.lanes}; }
inline Vec operator*(Vec a, Vec b) { return {a.lanes * b.lanes}; }
inline Vec operator/(Vec a, Vec b) { return {a.lanes / b.lanes}; }
inline Vec fma(Vec a, Vec b, Vec c) {
#ifdef __FP_FAST_FMAF  // else it would be a call
  for (int i = 0; i < 4; ++i) c.lanes[i] = __builtin_fmaf(a.lanes[i], b.lanes[i], c.lanes[i]);
  return c;
#else
  return {a.lanes * b.lanes + c.lanes};
#endif
}
inline Vec negated_fma(Vec a, Vec b, Vec c) { return fma({-a.lanes}, b, c); }

inline Mask less(Vec a, Vec b) { return {a.lanes < b.lanes}; }
inline Mask less_equal(Vec a, Vec b) { return {a.lanes <= b.lanes}; }
inline Mask equal(Vec a, Vec b) { return {a.lanes == b.lanes}; }
inline Mask operator&(Mask a, Mask b) { return {a.lanes & b.lanes}; }
inline bool any(Mask a) { return (a.lanes[0] | a.lanes[1] | a.lanes[2] | a.lanes[3]) != 0; }
inline Vec select(Mask mask, Vec a, Vec b) {
  const FourInts chosen = ((FourInts)a.lanes & mask.lanes) | ((FourInts)b.lanes & ~mask.lanes);
  return {(FourFloats)chosen};
}
inline Vec max(Vec a, Vec b) { return select(less(b, a), a, b); }
inline Vec min(Vec a, Vec b) { return select(less(a, b), a, b); }
inline Vec abs(Vec a) {
  const FourInts magnitude = {0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF};
  return {(FourFloats)((FourInts)a.lanes & magnitude)};
}
// Adding 1.5 · 2^23 leaves no room for a fraction; exact for |a| <= 2^22, which is all that exp
// needs.
inline Vec round(Vec a) {
  const Vec shift = broadcast(12582912.0f);
  return (a + shift) - shift;
}
// 2^x rounds to zero below 2^-150; the limit keeps −inf − floor(−inf) from making a NaN, and is so
// low that −inf is multiplied by zero (vec/avx2.h).
inline Vec limited_power(Vec x) { return max(broadcast(-254.0f), x); }
inline Vec floor(Vec a) {
  const Vec nearest = round(a);
  return select(less(a, nearest), nearest - broadcast(1.0f), nearest);
}
inline Vec fraction(Vec x) {
  const Vec power = limited_power(x);
  return power - floor(power);
}
inline Vec scale_by_floor(Vec a, Vec x) {
  const Vec power = floor(limited_power(x));
  FourInts whole;
  for (int i = 0; i < 4; ++i) {  // a NaN's conversion would be undefined: any power will do for it
    whole[i] = power.lanes[i] == power.lanes[i] ? static_cast<std::int32_t>(power.lanes[i]) : 0;
  }
  const FourInts half = whole >> 1;
  const FourInts rest = whole - half;
  return {a.lanes * (FourFloats)((half + 127) << 23) * (FourFloats)((rest + 127) << 23)};
}

inline Vec swap_pairs(Vec a) {
  return {FourFloats{a.lanes[1], a.lanes[0], a.lanes[3], a.lanes[2]}};
}

inline float reduce_add(Vec a) { return (a.lanes[0] + a.lanes[2]) + (a.lanes[1] + a.lanes[3]); }
inline float reduce_max(Vec a) {
  float largest = a.lanes[0];
  for (int i = 1; i < 4; ++i) largest = a.lanes[i] > largest ? a.lanes[i] : largest;
  return largest;
}

inline void reduce_add(const Vec (&a)[8], float* sums) {
  for (int i = 0; i < 8; ++i) sums[i] = reduce_add(a[i]);
}

inline Vec load(const Float16* from) {
  Vec a;
  for (int i = 0; i < 4; ++i) a.lanes[i] = to_float(from[i]);
  return a;
}
inline void store(Float16* to, Vec a) {
  for (int i = 0; i < 4; ++i) to[i].bits = float16_from_float(a.lanes[i]);
}
inline Vec load(const BFloat16* from) {
  Vec a;
  for (int i = 0; i < 4; ++i) a.lanes[i] = to_float(from[i]);
  return a;
}
inline void store(BFloat16* to, Vec a) {
  for (int i = 0; i < 4; ++i) to[i].bits = bfloat16_from_float(a.lanes[i]);
}
inline Vec load_low_nibbles(const std::uint8_t* from) {
  Vec a;
  for (int i = 0; i < 4; ++i) a.lanes[i] = static_cast<float>(from[i] & 15);
  return a;
}
inline Vec load_high_nibbles(const std::uint8_t* from) {
  Vec a;
  for (int i = 0; i < 4; ++i) a.lanes[i] = static_cast<float>(from[i] >> 4);
  return a;
}
inline Vec load(const Int8* from) {
  Vec a = zero();
  for (int i = 0; i < 4; ++i) a.lanes[i] = to_float(from[i]);
  return a;
}
// The elements at even and at odd places of 2 · kWidth bfloat16.
inline Vec even_half(const std::uint16_t* from) {
  Vec even;
  for (int i = 0; i < 4; ++i) even.lanes[i] = float_from_bfloat16(from[2 * i]);
  return even;
}
inline Vec odd_half(const std::uint16_t* from) { return even_half(from + 1); }
inline void add_product(Vec& sum, Vec a, Vec b) { sum = fma(a, b, sum); }
inline Mask mask_from_bits(std::uint16_t bits) {
  const FourInts lane = {1, 2, 4, 8};
  const FourInts all = {bits, bits, bits, bits};
  return {(all & lane) == lane};
}
inline std::uint64_t nonzero_bits(const std::uint8_t* from, int count) {
  std::uint64_t bits = 0;
  for (int i = 0; i < count; ++i) bits |= static_cast<std::uint64_t>(from[i] != 0) << i;
  return bits;
}
inline void transpose_bits(const std::uint64_t (&rows)[4], std::uint16_t* columns) {
  for (int j = 0; j < 64; ++j) {
    unsigned column = 0;
    for (int i = 0; i < 4; ++i) column |= static_cast<unsigned>(rows[i] >> j & 1u) << i;
    columns[j] = static_cast<std::uint16_t>(column);
  }
}
inline Vec load(const Bool* from) {
  Vec a;
  for (int i = 0; i < 4; ++i) a.lanes[i] = to_float(from[i]);
  return a;
}

struct Ints {
  FourInts lanes;
};
struct Shorts {
  FourInts pairs;  // two of 16 bits in a lane
};

inline void store_rounded(std::int16_t* to, Vec a) {
  const Vec nearest = round(a);
  for (int i = 0; i < 4; ++i) to[i] = static_cast<std::int16_t>(nearest.lanes[i]);
}
inline Shorts load_shorts(const std::int16_t* from) {
  Shorts a;
  __builtin_memcpy(&a.pairs, from, sizeof a.pairs);
  return a;
}
inline Shorts widen(const std::int8_t* from) {
  std::int16_t wide[8];
  for (int i = 0; i < 8; ++i) wide[i] = from[i];
  return load_shorts(wide);
}
inline Shorts repeat_four(const std::int16_t* from) {
  std::int16_t four[8];
  for (int i = 0; i < 8; ++i) four[i] = from[i % 4];
  return load_shorts(four);
}
inline Ints no_sums() { return {FourInts{}}; }
inline Ints dot(Ints sum, Shorts a, Shorts b) {
  const FourInts one = (a.pairs << 16 >> 16) * (b.pairs << 16 >> 16);
  return {sum.lanes + one + (a.pairs >> 16) * (b.pairs >> 16)};
}
inline void store(std::int32_t* to, Ints a) { __builtin_memcpy(to, &a.lanes, sizeof a.lanes); }

inline void transpose(Vec (&rows)[4]) {
  for (int i = 0; i < 4; ++i) {
    for (int j = i + 1; j < 4; ++j) {
      const float kept = rows[i].lanes[j];
      rows[i].lanes[j] = rows[j].lanes[i];
      rows[j].lanes[i] = kept;
    }
  }
}

}  // namespace
}  // namespace numattn
