// The operations of one vec/<name>.h against the meaning that vec/scalar.h gives them, lane by lane
// and bit by bit. Compiled once for each register type; run_vec.cpp has the main().
#include <cmath>
#include <cstdint>
#include <initializer_list>

#include "expect.h"
#include NUMATTN_VEC

#include "numattn/dtype.h"

namespace numattn {
namespace {

constexpr int kWidth = Vec::kWidth;

struct Lanes {
  float at[kWidth];
};

Lanes lanes_of(Vec a) {
  Lanes lanes;
  store(lanes.at, a);
  return lanes;
}

// Whether each lane of a mask is set.
Lanes lanes_of(Mask mask) { return lanes_of(select(mask, broadcast(1.0f), zero())); }

bool same(float a, float b) {
  return (a != a && b != b) || bits_from_float(a) == bits_from_float(b);
}

// Numbers that show what an operation does at its edges, and some between.
constexpr float kInfinity = __builtin_inff();
const float kNumbers[] = {0.0f,          -0.0f,          1.0f,           -1.0f,
                          0.5f,          1.5f,           2.5f,           -2.5f,
                          3.4028235e38f, -3.4028235e38f, 1.1754944e-38f, 1e-45f,
                          -1e-40f,       kInfinity,      -kInfinity,     __builtin_nanf(""),
                          65504.0f,      65520.0f,       6e-8f,          2.9e-8f,
                          1.00390625f,   1.01171875f,    -126.5f,        -149.0f,
                          -160.5f,       126.75f,        3.14159265f,    -1234.567f,
                          4194303.5f,    1e10f,          1e-10f,         7.0f};
constexpr int kNumberCount = sizeof(kNumbers) / sizeof(*kNumbers);

// The numbers from the index on, round and round.
Lanes numbers_from(int index) {
  Lanes lanes;
  for (int i = 0; i < kWidth; ++i) lanes.at[i] = kNumbers[(index + i) % kNumberCount];
  return lanes;
}

template <class Operation, class Meaning>
void compare_unary(const char* name, const Operation& operation, const Meaning& meaning) {
  for (int index = 0; index < kNumberCount; ++index) {
    const Lanes a = numbers_from(index);
    const Lanes got = lanes_of(operation(load(a.at)));
    for (int i = 0; i < kWidth; ++i) {
      const float wanted = meaning(a.at[i]);
      expect(same(got.at[i], wanted), "%s(%g) = %g, not %g", name, a.at[i], got.at[i], wanted);
    }
  }
}

template <class Operation, class Meaning>
void compare_binary(const char* name, const Operation& operation, const Meaning& meaning) {
  for (int index = 0; index < kNumberCount; ++index) {
    for (int other = 0; other < kNumberCount; ++other) {
      const Lanes a = numbers_from(index);
      const Lanes b = numbers_from(other);
      const Lanes got = lanes_of(operation(load(a.at), load(b.at)));
      for (int i = 0; i < kWidth; ++i) {
        const float wanted = meaning(a.at[i], b.at[i]);
        expect(same(got.at[i], wanted), "%s(%g, %g) = %g, not %g", name, a.at[i], b.at[i],
               got.at[i], wanted);
      }
    }
  }
}

void arithmetic() {
  compare_binary("+", [](Vec a, Vec b) { return a + b; }, [](float a, float b) { return a + b; });
  compare_binary("-", [](Vec a, Vec b) { return a - b; }, [](float a, float b) { return a - b; });
  compare_binary("*", [](Vec a, Vec b) { return a * b; }, [](float a, float b) { return a * b; });
  compare_binary("/", [](Vec a, Vec b) { return a / b; }, [](float a, float b) { return a / b; });
  compare_binary(
      "max", [](Vec a, Vec b) { return max(a, b); },
      [](float a, float b) { return a > b ? a : b; });
  compare_binary(
      "min", [](Vec a, Vec b) { return min(a, b); },
      [](float a, float b) { return a < b ? a : b; });
  compare_unary("abs", [](Vec a) { return abs(a); }, [](float a) { return __builtin_fabsf(a); });
}

// Products and sums that are exact tell whether the operands are taken right whether or not the
// operation is fused; how it rounds is the processor's.
void fused_products() {
  Lanes a, b, c;
  for (int i = 0; i < kWidth; ++i) {
    a.at[i] = static_cast<float>(i + 2);
    b.at[i] = static_cast<float>(3 * i - 4);
    c.at[i] = static_cast<float>(100 - 7 * i);
  }
  const Lanes got = lanes_of(fma(load(a.at), load(b.at), load(c.at)));
  for (int i = 0; i < kWidth; ++i) {
    expect(got.at[i] == a.at[i] * b.at[i] + c.at[i], "fma of lane %d", i);
  }
  const Lanes negated = lanes_of(negated_fma(load(a.at), load(b.at), load(c.at)));
  for (int i = 0; i < kWidth; ++i) {
    expect(negated.at[i] == c.at[i] - a.at[i] * b.at[i], "negated_fma of lane %d", i);
  }
}

// A product and a sum that are written apart round apart, whatever the compiler could make of them.
void products_and_sums_apart() {
  volatile float source = 1.0f + 0x1p-12f;  // its square needs 24 bits behind the point
  const auto number = [&] { return broadcast(source); };
  const Lanes square = lanes_of(number() * number());
  const Lanes sum = lanes_of(number() * number() + broadcast(-1.0f));
  const Lanes difference = lanes_of(broadcast(1.0f) - number() * number());
  expect(same(square.at[0], 1.0f + 0x1p-11f), "a product");
  expect(same(sum.at[0], 0x1p-11f), "a product and a sum are fused");
  expect(same(difference.at[0], -0x1p-11f), "a product and a difference are fused");
}

void comparisons() {
  const auto flag = [](bool holds) { return holds ? 1.0f : 0.0f; };
  const auto compare = [&](const char* name, const auto& operation, const auto& meaning) {
    compare_binary(
        name, [&](Vec a, Vec b) { return load(lanes_of(operation(a, b)).at); },
        [&](float a, float b) { return flag(meaning(a, b)); });
  };
  compare("less", [](Vec a, Vec b) { return less(a, b); }, [](float a, float b) { return a < b; });
  compare(
      "less_equal", [](Vec a, Vec b) { return less_equal(a, b); },
      [](float a, float b) { return a <= b; });
  compare(
      "equal", [](Vec a, Vec b) { return equal(a, b); }, [](float a, float b) { return a == b; });
  compare(
      "&", [](Vec a, Vec b) { return less(zero(), a) & less(zero(), b); },
      [](float a, float b) { return a > 0.0f && b > 0.0f; });
  compare_binary(
      "select", [](Vec a, Vec b) { return select(less(zero(), a), a, b); },
      [](float a, float b) { return a > 0.0f ? a : b; });
}

void rounding() {
  const auto round_even = [](float a) {  // in the default mode
    return std::nearbyint(a);
  };
  for (int index = 0; index < kNumberCount; ++index) {
    const Lanes a = numbers_from(index);
    const Lanes got = lanes_of(round(load(a.at)));
    for (int i = 0; i < kWidth; ++i) {
      if (!(__builtin_fabsf(a.at[i]) <= 4194304.0f)) continue;  // 2^22
      expect(got.at[i] == round_even(a.at[i]), "round(%g) = %g", a.at[i], got.at[i]);
    }
  }
}

// 2^x is scale_by_floor(2^fraction(x), x).
void powers() {
  for (int index = 0; index < kNumberCount; ++index) {
    const Lanes x = numbers_from(index);
    const Lanes got = lanes_of(fraction(load(x.at)));
    for (int i = 0; i < kWidth; ++i) {
      const float power = x.at[i];
      if (power > 4194304.0f) continue;  // 2^22: beyond what round() is for
      const float wanted = power - std::floor(power);
      // 2^x is 0 below, and some take x for -160.
      if (power < -160.0f && got.at[i] == 0.0f) continue;
      // A difference that is no float may be rounded either way: Zen 4's vreduceps goes down.
      const bool is_exact =
          static_cast<double>(wanted) + std::floor(static_cast<double>(power)) == power;
      expect(got.at[i] == wanted || (!is_exact && got.at[i] == std::nextafter(wanted, 0.0f)) ||
                 (got.at[i] != got.at[i] && wanted != wanted),
             "fraction(%g) = %.9g, not %.9g", power, got.at[i], wanted);
    }
  }
  for (int index = 0; index < kNumberCount; ++index) {
    const Lanes x = numbers_from(index);
    for (const float factor : {1.0f, 1.999999f, 1.25f}) {
      const Lanes got = lanes_of(scale_by_floor(broadcast(factor), load(x.at)));
      for (int i = 0; i < kWidth; ++i) {
        if (!(x.at[i] < 127.0f)) continue;
        const double power = std::floor(x.at[i] > -160.0f ? x.at[i] : -160.0);
        const auto wanted = static_cast<float>(factor * std::exp2(power));
        expect(same(got.at[i], wanted), "%g · 2^floor(%g) = %g, not %g", factor, x.at[i], got.at[i],
               wanted);
      }
    }
  }
}

void parts_of_vectors() {
  static float exactly[kWidth];  // what is loaded ends where the array does
  for (int count = 0; count < kWidth; ++count) {
    const Lanes source = numbers_from(20);
    float* from = exactly + (kWidth - count);
    for (int i = 0; i < count; ++i) from[i] = source.at[i];
    const Lanes got = lanes_of(load_partial(from, count));
    static float kept[kWidth];
    for (float& number : kept) number = -7.0f;
    store_partial(kept, load(source.at), count);
    for (int i = 0; i < kWidth; ++i) {
      expect(same(got.at[i], i < count ? source.at[i] : 0.0f), "load_partial lane %d", i);
      expect(same(kept[i], i < count ? source.at[i] : -7.0f), "store_partial lane %d", i);
    }
  }
}

void movements() {
  const Lanes a = numbers_from(5);
  const Lanes swapped = lanes_of(swap_pairs(load(a.at)));
  for (int i = 0; i < kWidth; ++i)
    expect(same(swapped.at[i], a.at[i ^ 1]), "swap_pairs lane %d", i);
  Vec rows[kWidth];
  for (int i = 0; i < kWidth; ++i) {
    Lanes row;
    for (int j = 0; j < kWidth; ++j) row.at[j] = static_cast<float>(100 * i + j);
    rows[i] = load(row.at);
  }
  transpose(rows);
  for (int i = 0; i < kWidth; ++i) {
    const Lanes column = lanes_of(rows[i]);
    for (int j = 0; j < kWidth; ++j) {
      expect(column.at[j] == static_cast<float>(100 * j + i), "transpose (%d, %d)", i, j);
    }
  }
}

void reductions() {
  Vec eight[8];
  float wanted[8];
  for (int i = 0; i < 8; ++i) {
    Lanes lanes;
    wanted[i] = 0.0f;
    for (int j = 0; j < kWidth; ++j) {  // whole numbers, whose sums are exact in any order
      lanes.at[j] = static_cast<float>((13 * i + 7 * j) % 29 - 14);
      wanted[i] += lanes.at[j];
    }
    eight[i] = load(lanes.at);
    float largest = lanes.at[0];
    for (int j = 1; j < kWidth; ++j) largest = lanes.at[j] > largest ? lanes.at[j] : largest;
    expect(reduce_add(eight[i]) == wanted[i], "reduce_add");
    expect(reduce_max(eight[i]) == largest, "reduce_max");
  }
  float sums[8];
  reduce_add(eight, sums);
  for (int i = 0; i < 8; ++i) expect(sums[i] == wanted[i], "reduce_add of eight: %d", i);
  // In one order for all eight: the same lanes have the same sum wherever they stand.
  Lanes odd;
  for (int j = 0; j < kWidth; ++j) odd.at[j] = 1.0f / static_cast<float>(3 * j + 1);
  for (Vec& a : eight) a = load(odd.at);
  reduce_add(eight, sums);
  for (const float sum : sums) expect(same(sum, sums[0]), "reduce_add of eight alike");
}

// Every pattern of 16 bits, kWidth at a time.
void elements() {
  for (int first = 0; first < 65536; first += kWidth) {
    std::uint16_t bits[kWidth], half[kWidth], brain[kWidth];
    for (int i = 0; i < kWidth; ++i) bits[i] = static_cast<std::uint16_t>(first + i);
    const Lanes halves = lanes_of(load(reinterpret_cast<const Float16*>(bits)));
    const Lanes brains = lanes_of(load(reinterpret_cast<const BFloat16*>(bits)));
    store(reinterpret_cast<Float16*>(half), load(reinterpret_cast<const Float16*>(bits)));
    store(reinterpret_cast<BFloat16*>(brain), load(reinterpret_cast<const BFloat16*>(bits)));
    for (int i = 0; i < kWidth; ++i) {
      expect(same(halves.at[i], float_from_float16(bits[i])), "load of float16 %04x", bits[i]);
      expect(same(brains.at[i], float_from_bfloat16(bits[i])), "load of bfloat16 %04x", bits[i]);
      expect(same(float_from_float16(half[i]), halves.at[i]), "store of float16 %04x", bits[i]);
      expect(same(float_from_bfloat16(brain[i]), brains.at[i]), "store of bfloat16 %04x", bits[i]);
    }
  }
  for (int index = 0; index < kNumberCount; ++index) {
    const Lanes a = numbers_from(index);
    std::uint16_t half[kWidth], brain[kWidth];
    store(reinterpret_cast<Float16*>(half), load(a.at));
    store(reinterpret_cast<BFloat16*>(brain), load(a.at));
    for (int i = 0; i < kWidth; ++i) {
      expect(same(float_from_float16(half[i]), float_from_float16(float16_from_float(a.at[i]))),
             "float16 of %g", a.at[i]);
      expect(same(float_from_bfloat16(brain[i]), float_from_bfloat16(bfloat16_from_float(a.at[i]))),
             "bfloat16 of %g", a.at[i]);
    }
  }
  std::uint16_t pairs[2 * kWidth];
  for (int i = 0; i < 2 * kWidth; ++i) pairs[i] = bfloat16_from_float(static_cast<float>(i - 5));
  const Lanes even = lanes_of(even_half(pairs));
  const Lanes odd = lanes_of(odd_half(pairs));
  for (int first = 0; first < 256; first += kWidth) {
    std::int8_t numbers[kWidth];
    std::uint8_t flags[kWidth];
    for (int i = 0; i < kWidth; ++i) {
      numbers[i] = static_cast<std::int8_t>(first + i - 128);
      flags[i] = static_cast<std::uint8_t>(first + i);
    }
    for (int i = 0; i < kWidth; ++i) {
      expect(lanes_of(load(reinterpret_cast<const Int8*>(numbers))).at[i] ==
                 static_cast<float>(numbers[i]),
             "load of int8");
      expect(lanes_of(load(reinterpret_cast<const Bool*>(flags))).at[i] ==
                 (flags[i] != 0 ? 1.0f : 0.0f),
             "load of a flag");
      expect(lanes_of(load_low_nibbles(flags)).at[i] == static_cast<float>(flags[i] % 16) &&
                 lanes_of(load_high_nibbles(flags)).at[i] == static_cast<float>(flags[i] / 16),
             "nibbles of %d", flags[i]);
    }
  }
  for (int i = 0; i < kWidth; ++i) {
    expect(even.at[i] == static_cast<float>(2 * i - 5), "even half %d", i);
    expect(odd.at[i] == static_cast<float>(2 * i - 4), "odd half %d", i);
  }
}

void bits() {
  for (unsigned pattern = 0; pattern < (1u << kWidth); ++pattern) {
    const Lanes got = lanes_of(mask_from_bits(static_cast<std::uint16_t>(pattern)));
    for (int i = 0; i < kWidth; ++i) {
      expect(got.at[i] == static_cast<float>(pattern >> i & 1u), "mask_from_bits %x", pattern);
    }
  }
  std::uint8_t bytes[64];
  for (int i = 0; i < 64; ++i) bytes[i] = static_cast<std::uint8_t>(i * i % 7 == 2 ? i + 1 : 0);
  for (int count = 0; count <= 64; ++count) {
    std::uint64_t wanted = 0;
    for (int i = 0; i < count; ++i) wanted |= static_cast<std::uint64_t>(bytes[i] != 0) << i;
    expect(nonzero_bits(bytes, count) == wanted, "nonzero_bits of %d", count);
  }
  std::uint64_t rows[kWidth];
  for (int i = 0; i < kWidth; ++i) {
    rows[i] = 0x9E3779B97F4A7C15u * static_cast<std::uint64_t>(i + 1);
  }
  std::uint16_t columns[64];
  transpose_bits(rows, columns);
  for (int j = 0; j < 64; ++j) {
    for (int i = 0; i < kWidth; ++i) {
      expect((columns[j] >> i & 1) == static_cast<int>(rows[i] >> j & 1u), "transpose_bits");
    }
  }
}

// dot() on all pairs of extreme and of ordinary integers, and what goes into it and out of it.
void integers() {
  constexpr float kHalves[] = {0.0f,    -0.0f,     0.5f,      1.5f,     2.5f,      -0.5f,  -1.5f,
                               0.4999f, 32639.25f, -32639.0f, 32766.5f, -32766.5f, 127.5f, 1e-40f};
  constexpr int kHalfCount = sizeof(kHalves) / sizeof(*kHalves);
  for (int first = 0; first < kHalfCount; ++first) {
    float numbers[kWidth];
    std::int16_t rounded[kWidth];
    for (int i = 0; i < kWidth; ++i) numbers[i] = kHalves[(first + i) % kHalfCount];
    store_rounded(rounded, load(numbers));
    for (int i = 0; i < kWidth; ++i) {
      expect(rounded[i] == static_cast<std::int16_t>(std::rint(numbers[i])), "store_rounded %g",
             numbers[i]);
    }
  }
  constexpr std::int16_t kLeft[] = {32639, -32639, 1, 0, -32639, 32639, -7, 300};
  for (int step = 0; step < 256; ++step) {
    std::int8_t right[2 * kWidth];
    for (int i = 0; i < 2 * kWidth; ++i) {
      right[i] = static_cast<std::int8_t>(i % 3 == 0 ? step - 128 : 37 * i + step);
    }
    const std::int16_t* four = kLeft + step % 5;
    Ints sum = no_sums();
    for (int i = 0; i < 3; ++i) sum = dot(sum, repeat_four(four), widen(right));
    std::int32_t sums[kWidth];
    store(sums, sum);
    for (int i = 0; i < kWidth; ++i) {
      const int even = four[2 * i % 4] * right[2 * i];
      const int wanted = 3 * (even + four[2 * i % 4 + 1] * right[2 * i + 1]);
      expect(sums[i] == wanted, "dot: sum %d is %d, not %d", i, sums[i], wanted);
    }
  }
}

}  // namespace

int compare_vec() {
  arithmetic();
  fused_products();
  products_and_sums_apart();
  comparisons();
  rounding();
  powers();
  parts_of_vectors();
  movements();
  reductions();
  elements();
  bits();
  integers();
  return report();
}

}  // namespace numattn
