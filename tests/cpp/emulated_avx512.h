// The operations of vec/avx512.h, vec/bytes.h and vec/bfloat16.h in portable C++: 16 lanes, which
// the compiler lowers to whatever registers it may use. With it the kernels of avx512, avx512vnni,
// avx512bf16 and amx run, and round as on their own processors, where there is no AVX-512. test_vec
// holds the real operations to these where there is.
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>

#include "numattn/dtype.h"

// The processor's own control register: what is in software here rounds by it too.
#include "vec/float_control.h"

// What is long is compiled once: speed is not wanted here.
#define NOT_INLINED __attribute__((noinline)) inline

namespace numattn {
namespace {

constexpr int kLanes = 16;

typedef float FloatLanes __attribute__((vector_size(4 * kLanes)));
typedef std::int32_t IntLanes __attribute__((vector_size(4 * kLanes)));

struct Mask {
  IntLanes lanes;  // all bits of a lane, or none
};

struct Vec {
  static constexpr int kWidth = kLanes;
  // The register tile of tile.h, and keys per tile (table.h).
  static constexpr int kTileRows = 8;
  static constexpr int kTileVectors = 3;
  static constexpr int kKeyBlock = 192;
  FloatLanes lanes;
};

// lane i = call(i)
template <class Call>
inline Vec each_lane(const Call& call) {
  Vec result;
  for (int i = 0; i < kLanes; ++i) result.lanes[i] = call(i);
  return result;
}
inline std::uint32_t bits_of(float a) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &a, sizeof bits);
  return bits;
}
inline float float_of(std::uint32_t bits) {
  float a;
  __builtin_memcpy(&a, &bits, sizeof a);
  return a;
}

inline Vec broadcast(float value) { return {value - FloatLanes{}}; }
inline Vec zero() { return {FloatLanes{}}; }
inline Vec load(const float* from) {
  Vec a;
  __builtin_memcpy(&a.lanes, from, sizeof a.lanes);
  return a;
}
inline void store(float* to, Vec a) { __builtin_memcpy(to, &a.lanes, sizeof a.lanes); }
NOT_INLINED Vec load_partial(const float* from, int count) {
  Vec a = zero();
  for (int i = 0; i < count; ++i) a.lanes[i] = from[i];
  return a;
}
NOT_INLINED void store_partial(float* to, Vec a, int count) {
  for (int i = 0; i < count; ++i) to[i] = a.lanes[i];
}

inline Vec operator+(Vec a, Vec b) { return {a.lanes + b.lanes}; }
inline Vec operator-(Vec a, Vec b) { return {a.lanes - b.lanes}; }
inline Vec operator*(Vec a, Vec b) { return {a.lanes * b.lanes}; }
inline Vec operator/(Vec a, Vec b) { return {a.lanes / b.lanes}; }
inline Vec fma(Vec a, Vec b, Vec c) {
  __m256 left[2], right[2], sum[2];
  __builtin_memcpy(left, &a.lanes, sizeof left);
  __builtin_memcpy(right, &b.lanes, sizeof right);
  __builtin_memcpy(sum, &c.lanes, sizeof sum);
  for (int i = 0; i < 2; ++i) sum[i] = _mm256_fmadd_ps(left[i], right[i], sum[i]);
  __builtin_memcpy(&c.lanes, sum, sizeof sum);
  return c;
}
inline Vec negated_fma(Vec a, Vec b, Vec c) { return fma({-a.lanes}, b, c); }

inline Mask less(Vec a, Vec b) { return {a.lanes < b.lanes}; }
inline Mask less_equal(Vec a, Vec b) { return {a.lanes <= b.lanes}; }
inline Mask equal(Vec a, Vec b) { return {a.lanes == b.lanes}; }
inline Mask operator&(Mask a, Mask b) { return {a.lanes & b.lanes}; }
NOT_INLINED bool any(Mask a) {
  std::int32_t bits = 0;
  for (int i = 0; i < kLanes; ++i) bits |= a.lanes[i];
  return bits != 0;
}
inline Vec select(Mask mask, Vec a, Vec b) {
  return {(FloatLanes)(((IntLanes)a.lanes & mask.lanes) | ((IntLanes)b.lanes & ~mask.lanes))};
}
inline Vec max(Vec a, Vec b) { return select(less(b, a), a, b); }
inline Vec min(Vec a, Vec b) { return select(less(a, b), a, b); }
inline Vec abs(Vec a) { return {(FloatLanes)((IntLanes)a.lanes & 0x7FFFFFFF)}; }
NOT_INLINED Vec round(Vec a) {
  return each_lane([&](int i) { return __builtin_rintf(a.lanes[i]); });
}
NOT_INLINED Vec fraction(Vec a) {
  return each_lane([&](int i) {
    const float x = a.lanes[i];
    return x == -__builtin_inff() ? 0.0f : x - __builtin_floorf(x);
  });
}
NOT_INLINED Vec scale_by_floor(Vec a, Vec x) {
  return each_lane([&](int i) {
    const float power = x.lanes[i];
    if (power != power) return power;
    const float limited = power < -400.0f ? -400.0f : power > 400.0f ? 400.0f : power;
    return __builtin_ldexpf(a.lanes[i], static_cast<int>(__builtin_floorf(limited)));
  });
}

NOT_INLINED Vec swap_pairs(Vec a) {
  return each_lane([&](int i) { return a.lanes[i ^ 1]; });
}

// Halves, quarters, pairs and single lanes, as the intrinsic adds them.
NOT_INLINED float reduce_add(Vec a) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) a.lanes[i] = a.lanes[i] + a.lanes[i + half];
  }
  return a.lanes[0];
}
NOT_INLINED float reduce_max(Vec a) {
  float largest = a.lanes[0];
  for (int i = 1; i < kLanes; ++i) largest = a.lanes[i] > largest ? a.lanes[i] : largest;
  return largest;
}
NOT_INLINED void reduce_add(const Vec (&a)[8], float* sums) {
  for (int i = 0; i < 8; ++i) sums[i] = reduce_add(a[i]);
}

NOT_INLINED Vec load(const Float16* from) {
  return each_lane([=](int i) { return to_float(from[i]); });
}
NOT_INLINED void store(Float16* to, Vec a) {
  for (int i = 0; i < kLanes; ++i) to[i].bits = float16_from_float(a.lanes[i]);
}
NOT_INLINED Vec load(const BFloat16* from) {
  return each_lane([=](int i) { return to_float(from[i]); });
}
NOT_INLINED void store(BFloat16* to, Vec a) {
  for (int i = 0; i < kLanes; ++i) to[i].bits = bfloat16_from_float(a.lanes[i]);
}
NOT_INLINED Vec load_low_nibbles(const std::uint8_t* from) {
  return each_lane([&](int i) { return static_cast<float>(from[i] & 15); });
}
NOT_INLINED Vec load_high_nibbles(const std::uint8_t* from) {
  return each_lane([&](int i) { return static_cast<float>(from[i] >> 4); });
}
NOT_INLINED Vec load(const Int8* from) {
  return each_lane([=](int i) { return to_float(from[i]); });
}
NOT_INLINED Vec even_half(const std::uint16_t* from) {
  return each_lane([=](int i) { return float_from_bfloat16(from[2 * i]); });
}
NOT_INLINED Vec odd_half(const std::uint16_t* from) {
  return each_lane([=](int i) { return float_from_bfloat16(from[2 * i + 1]); });
}
inline void add_product(Vec& sum, Vec a, Vec b) { sum = fma(a, b, sum); }
NOT_INLINED Mask mask_from_bits(std::uint16_t bits) {
  Mask mask;
  for (int i = 0; i < kLanes; ++i) mask.lanes[i] = (bits >> i & 1) != 0 ? -1 : 0;
  return mask;
}
NOT_INLINED std::uint64_t nonzero_bits(const std::uint8_t* from, int count) {
  std::uint64_t bits = 0;
  for (int i = 0; i < count; ++i) bits |= static_cast<std::uint64_t>(from[i] != 0) << i;
  return bits;
}
NOT_INLINED void transpose_bits(const std::uint64_t (&rows)[kLanes], std::uint16_t* columns) {
  for (int j = 0; j < 64; ++j) {
    unsigned column = 0;
    for (int i = 0; i < kLanes; ++i) column |= static_cast<unsigned>(rows[i] >> j & 1u) << i;
    columns[j] = static_cast<std::uint16_t>(column);
  }
}
NOT_INLINED Vec load(const Bool* from) {
  return each_lane([=](int i) { return to_float(from[i]); });
}
NOT_INLINED void transpose(Vec (&rows)[kLanes]) {
  for (int i = 0; i < kLanes; ++i) {
    for (int j = i + 1; j < kLanes; ++j) {
      const float kept = rows[i].lanes[j];
      rows[i].lanes[j] = rows[j].lanes[i];
      rows[j].lanes[i] = kept;
    }
  }
}

// --- Integers -----------------------------------------------------------------------------------

struct Ints {
  IntLanes lanes;
};
struct Shorts {
  IntLanes pairs;  // two of 16 bits in a lane
};

NOT_INLINED void store_rounded(std::int16_t* to, Vec a) {
  for (int i = 0; i < kLanes; ++i) to[i] = static_cast<std::int16_t>(__builtin_rintf(a.lanes[i]));
}
NOT_INLINED Shorts widen(const std::int8_t* from) {
  std::int16_t wide[2 * kLanes];
  for (int i = 0; i < 2 * kLanes; ++i) wide[i] = from[i];
  Shorts a;
  __builtin_memcpy(&a.pairs, wide, sizeof a.pairs);
  return a;
}
NOT_INLINED Shorts repeat_four(const std::int16_t* from) {
  Shorts a;
  for (int i = 0; i < kLanes; ++i) {
    std::int32_t pair;
    __builtin_memcpy(&pair, from + i % 2 * 2, sizeof pair);
    a.pairs[i] = pair;
  }
  return a;
}
inline Ints no_sums() { return {IntLanes{}}; }
inline Ints dot(Ints sum, Shorts a, Shorts b) {
  const IntLanes one = (a.pairs << 16 >> 16) * (b.pairs << 16 >> 16);
  return {sum.lanes + one + (a.pairs >> 16) * (b.pairs >> 16)};
}
inline void store(std::int32_t* to, Ints a) { __builtin_memcpy(to, &a.lanes, sizeof a.lanes); }

struct Bytes {
  IntLanes quads;  // four of 8 bits in a lane
};

inline Bytes load_bytes(const std::int8_t* from) {
  Bytes a;
  __builtin_memcpy(&a.quads, from, sizeof a.quads);
  return a;
}
inline Bytes repeat_four(const std::uint8_t* from) {
  std::int32_t four;
  __builtin_memcpy(&four, from, sizeof four);
  return {four - IntLanes{}};
}
NOT_INLINED Vec sum_to_float(const std::int32_t* sums, std::int32_t factor,
                             const std::int32_t* column_sums) {
  IntLanes whole;
  IntLanes more;
  __builtin_memcpy(&whole, sums, sizeof whole);
  __builtin_memcpy(&more, column_sums, sizeof more);
  whole += factor * more;
  return each_lane([&](int i) { return static_cast<float>(whole[i]); });
}
NOT_INLINED Ints dot(Ints sum, Bytes a, Bytes b) {
  for (int byte = 0; byte < 4; ++byte) {
    sum.lanes += (a.quads >> 8 * byte & 255) * (b.quads << (24 - 8 * byte) >> 24);
  }
  return sum;
}

// --- Pairs of bfloat16 ------------------------------------------------------------------------

struct Pairs {
  alignas(64) std::uint16_t elements[2 * kLanes];
};

inline Pairs load_pairs(const std::uint16_t* from) {
  Pairs a;
  __builtin_memcpy(a.elements, from, sizeof a.elements);
  return a;
}
NOT_INLINED void store_pairs(std::uint16_t* to, Pairs a) {
  __builtin_memcpy(to, a.elements, sizeof a.elements);
}
NOT_INLINED Pairs broadcast_pair(const std::uint16_t* from) {
  Pairs a;
  for (int i = 0; i < 2 * kLanes; ++i) a.elements[i] = from[i % 2];
  return a;
}

NOT_INLINED Vec even_of(Pairs a) {
  return each_lane([&](int i) { return float_from_bfloat16(a.elements[2 * i]); });
}
NOT_INLINED Vec odd_of(Pairs a) {
  return each_lane([&](int i) { return float_from_bfloat16(a.elements[2 * i + 1]); });
}

NOT_INLINED float without_subnormal(float a) {
  return (bits_of(a) & 0x7F800000u) == 0 ? float_of(bits_of(a) & 0x80000000u) : a;
}

// The unit's order: the odd product first, then the even one, each rounded once.
NOT_INLINED Vec dot(Vec sum, Pairs a, Pairs b) {
  const auto add = [](float x, float y, float to) {
    return without_subnormal(__builtin_fmaf(without_subnormal(x), without_subnormal(y), to));
  };
  const Vec odd_a = odd_of(a), odd_b = odd_of(b), even_a = even_of(a), even_b = even_of(b);
  return each_lane([&](int i) {
    const float odd = add(odd_a.lanes[i], odd_b.lanes[i], without_subnormal(sum.lanes[i]));
    return add(even_a.lanes[i], even_b.lanes[i], odd);
  });
}

NOT_INLINED Pairs round_to_pairs(Vec even, Vec odd) {
  Pairs a;
  for (int i = 0; i < kLanes; ++i) {
    a.elements[2 * i] = bfloat16_from_float(without_subnormal(even.lanes[i]));
    a.elements[2 * i + 1] = bfloat16_from_float(without_subnormal(odd.lanes[i]));
  }
  return a;
}

// As in vec/bfloat16.h: the lanes' arithmetic heeds the same register.
inline Vec as_lanes(Pairs a) {
  Vec lanes;
  __builtin_memcpy(&lanes.lanes, a.elements, sizeof lanes.lanes);
  return lanes;
}
inline Pairs as_pairs(Vec a) {
  Pairs pairs;
  __builtin_memcpy(pairs.elements, &a.lanes, sizeof pairs.elements);
  return pairs;
}

constexpr float kLargestBFloat16 = 0x1.FEp127f;
constexpr float kSmallestOrdinary = 0x1p-90f;

NOT_INLINED bool is_ordinary(float a) {
  const float size = __builtin_fabsf(a);
  return size == 0.0f || (kSmallestOrdinary <= size && size <= kLargestBFloat16);
}
NOT_INLINED Vec finite_or_zero(Vec a) {
  return each_lane(
      [&](int i) { return __builtin_fabsf(a.lanes[i]) <= kLargestBFloat16 ? a.lanes[i] : 0.0f; });
}
NOT_INLINED Vec ordinary_or_zero(Vec a) {
  return each_lane([&](int i) { return is_ordinary(a.lanes[i]) ? a.lanes[i] : 0.0f; });
}
NOT_INLINED bool all_ordinary(Vec a) {
  for (int i = 0; i < kLanes; ++i) {
    if (!is_ordinary(a.lanes[i])) return false;
  }
  return true;
}

NOT_INLINED Pairs load_pairs(const std::uint16_t* from, int count) {
  Pairs a{};
  for (int i = 0; i < count && i < 2 * kLanes; ++i) a.elements[i] = from[i];
  return a;
}
NOT_INLINED void store_pairs(std::uint16_t* to, Pairs a, int count) {
  for (int i = 0; i < count && i < 2 * kLanes; ++i) to[i] = a.elements[i];
}
NOT_INLINED Pairs round_in_order(Vec first, Vec last) {
  Pairs a;
  for (int i = 0; i < kLanes; ++i) {
    a.elements[i] = bfloat16_from_float(without_subnormal(first.lanes[i]));
    a.elements[kLanes + i] = bfloat16_from_float(without_subnormal(last.lanes[i]));
  }
  return a;
}
NOT_INLINED Vec first_half(Pairs a) {
  return each_lane([&](int i) { return float_from_bfloat16(a.elements[i]); });
}
NOT_INLINED Vec last_half(Pairs a) {
  return each_lane([&](int i) { return float_from_bfloat16(a.elements[kLanes + i]); });
}
NOT_INLINED Pairs join_halves(Pairs a, Pairs b, int first) {
  Pairs joined;
  for (int i = 0; i < kLanes; ++i) {
    joined.elements[2 * i] = a.elements[first + i];
    joined.elements[2 * i + 1] = b.elements[first + i];
  }
  return joined;
}
inline Pairs join_first_halves(Pairs a, Pairs b) { return join_halves(a, b, 0); }
inline Pairs join_last_halves(Pairs a, Pairs b) { return join_halves(a, b, kLanes); }
NOT_INLINED Pairs ordinary_or_zero(Pairs a, bool& all) {
  for (std::uint16_t& element : a.elements) {
    if (is_ordinary(float_from_bfloat16(element))) continue;
    all = false;
    element = 0;
  }
  return a;
}
inline Vec in_register(Vec a) { return a; }
inline Vec high_half(Vec a) {
  return {(FloatLanes)((IntLanes)a.lanes & static_cast<std::int32_t>(0xFFFF0000u))};
}
struct HalfUp {
  Vec added_to(Vec a) const { return {(FloatLanes)((IntLanes)a.lanes + 0x8000)}; }
  Pairs join(Vec even, Vec odd) const {
    typedef std::uint32_t Words __attribute__((vector_size(4 * kLanes)));
    const Words joined = ((Words)even.lanes >> 16) | ((Words)odd.lanes & 0xFFFF0000u);
    Pairs a;
    __builtin_memcpy(a.elements, &joined, sizeof a.elements);
    return a;
  }
};
inline Pairs operator|(Pairs a, Pairs b) {
  for (int i = 0; i < 2 * kLanes; ++i) {
    a.elements[i] = static_cast<std::uint16_t>(a.elements[i] | b.elements[i]);
  }
  return a;
}
inline Pairs no_pairs() { return Pairs{}; }
NOT_INLINED bool any_from_two(Pairs a) {
  for (const std::uint16_t element : a.elements) {
    if ((element & 0x4000) != 0) return true;
  }
  return false;
}
inline Vec scale_by_floor(Mask allowed, Vec a, Vec x) {
  return select(allowed, scale_by_floor(a, x), zero());
}
NOT_INLINED bool any_subnormal(Vec a) {
  for (int i = 0; i < kLanes; ++i) {
    const std::uint32_t bits = bits_of(a.lanes[i]) & 0x7FFFFFFFu;
    if (bits != 0 && bits < 0x00800000u) return true;
  }
  return false;
}
NOT_INLINED Vec max_of_each(Vec (&rows)[kLanes]) {
  return each_lane([&](int i) { return reduce_max(rows[i]); });
}

}  // namespace
}  // namespace numattn
