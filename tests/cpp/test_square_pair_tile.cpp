// The products of square_pair_tile.h, of every height and some widths, against what the
// architecture's manual says of the unit, bit by bit; run_vec.cpp has the main().
#include <cmath>
#include <cstdint>
#include <vector>

#include "expect.h"
#include "vec/neonbf16.h"

#include "square_pair_tile.h"

namespace numattn {
namespace {

// high + low in float32, high being nearest to that in double: a sum that float32 does not hold
// goes to the neighbour whose last bit is 1, first in double, from where it is decided alike.
// Subnormal ones become 0.
float rounded_to_odd(double high, double low) {
  double odd = high;
  if (std::isfinite(high) && low != 0.0) {
    std::uint64_t bits;
    std::memcpy(&bits, &odd, sizeof bits);
    const bool away = (low > 0.0) == (high > 0.0);
    if ((bits & 1u) == 0) bits = away ? bits | 1u : bits - 1u;
    std::memcpy(&odd, &bits, sizeof odd);
  }
  auto nearest = static_cast<float>(odd);
  if (static_cast<double>(nearest) != odd && std::isfinite(odd)) {
    const double size = std::fabs(static_cast<double>(nearest));
    if (size > std::fabs(odd)) nearest = std::nextafter(nearest, 0.0f);
    nearest = float_from_bits(bits_from_float(nearest) | 1u);
  }
  return std::fabs(nearest) < 0x1p-126f ? std::copysign(0.0f, nearest) : nearest;
}

float sum_to_odd(float a, float b) {
  const double x = a;
  const double y = b;
  const double sum = x + y;
  const double part = sum - x;
  return rounded_to_odd(sum, (x - (sum - part)) + (y - part));
}

float product_of_elements(std::uint16_t a, std::uint16_t b) {
  const auto element = [](std::uint16_t bits) {
    return (bits & 0x7F80u) == 0 ? 0.0f : float_from_bfloat16(bits);
  };
  return rounded_to_odd(static_cast<double>(element(a)) * static_cast<double>(element(b)), 0.0);
}

constexpr int kMostRows = 2 * kTileRows + 1;
constexpr int kDepth = 36;

std::uint16_t next_element(std::uint32_t& state, bool with_special) {
  state = state * 1664525u + 1013904223u;
  const std::uint32_t random = state >> 8;
  if (with_special && random % 61 == 0) return 0x0012;  // subnormal
  if (with_special && random % 67 == 0) return 0x7F80;  // infinite
  // Numbers of both signs between 2^-8 and 2^8, and some so small that products vanish.
  const std::uint32_t exponent = random % 97 == 0 ? 50 : 119 + random / 128 % 17;
  return static_cast<std::uint16_t>((random & 0x8000u) | exponent << 7 | (random & 0x7Fu));
}

struct Operands {
  std::vector<std::uint16_t> a, b;  // rows of kDepth + 5; [depth / 2][kPanelColumns][2]

  explicit Operands(bool with_special) {
    std::uint32_t state = 7;
    for (int i = 0; i < kMostRows * (kDepth + 5); ++i) {
      a.push_back(next_element(state, with_special));
    }
    for (int i = 0; i < kDepth * kPanelColumns; ++i) {
      b.push_back(next_element(state, with_special));
    }
  }
  float product(int row, int column) const {
    float sum = 0.0f;
    for (int k = 0; k < kDepth; k += 2) {
      const std::uint16_t* left = a.data() + row * (kDepth + 5) + k;
      const std::uint16_t* right = b.data() + (k / 2 * kPanelColumns + column) * 2;
      sum = sum_to_odd(sum, sum_to_odd(product_of_elements(left[0], right[0]),
                                       product_of_elements(left[1], right[1])));
    }
    return sum;
  }
};

bool same(float a, float b) {
  return (a != a && b != b) || bits_from_float(a) == bits_from_float(b);
}

template <bool Add, int Vectors>
void compare(const Operands& in, int rows) {
  const PairProduct<1> product{kDepth, {{in.a.data(), kDepth + 5, in.b.data()}}};
  std::vector<float> sums(static_cast<std::size_t>(rows * kPanelColumns), 3.0f);
  NoRowsAhead none;
  multiply_pairs<Add, Vectors, kPanelColumns>(rows, product, sums.data(), none);
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < kPanelColumns; ++column) {
      const float got = sums[static_cast<std::size_t>(row * kPanelColumns + column)];
      const bool written = column < Vectors * Vec::kWidth;
      const float wanted = !written ? 3.0f
                           : Add    ? 3.0f + in.product(row, column)
                                    : in.product(row, column);
      expect(same(got, wanted), "%d rows, %d vectors: (%d, %d) is %a, not %a", rows, Vectors, row,
             column, static_cast<double>(got), static_cast<double>(wanted));
    }
  }
}

}  // namespace

int compare_vec() {
  for (const bool with_special : {false, true}) {
    const Operands in(with_special);
    for (int rows = 1; rows <= kMostRows; ++rows) {
      compare<false, kTileVectors>(in, rows);
      compare<true, kTileVectors>(in, rows);
      compare<false, 1>(in, rows);
      compare<true, 3>(in, rows);
    }
  }
  return report();
}

}  // namespace numattn
