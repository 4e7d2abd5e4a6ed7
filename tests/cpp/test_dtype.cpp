// Scalar conversions of every 16-bit pattern and of the hard cases of rounding.
#include "numattn/dtype.h"

#include <cmath>
#include <cstdint>
#include <initializer_list>

#include "expect.h"

using namespace numattn;

namespace {

// float16 from its definition: sign · (1 + fraction/1024) · 2^(exponent − 15).
double float16_value(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1F;
  const int fraction = bits & 0x3FF;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31) return fraction != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

void every_pattern_comes_back() {
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const auto pattern = static_cast<std::uint16_t>(bits);
    const float half = float_from_float16(pattern);
    const double wanted = float16_value(pattern);
    const bool nan = std::isnan(wanted);
    expect(nan ? std::isnan(half) : static_cast<double>(half) == wanted, "float16 %04x", bits);
    expect(nan ? std::isnan(float_from_float16(float16_from_float(half)))
               : float16_from_float(half) == pattern,
           "float16 %04x and back", bits);
    const float brain = float_from_bfloat16(pattern);
    expect(std::isnan(brain) ? std::isnan(float_from_bfloat16(bfloat16_from_float(brain)))
                             : bfloat16_from_float(brain) == pattern,
           "bfloat16 %04x and back", bits);
  }
}

// Between two neighbours the nearer wins, the even one in the middle.
void rounds_to_nearest_even() {
  for (unsigned bits = 0; bits < 0x7BFF; ++bits) {
    const auto lower = static_cast<std::uint16_t>(bits);
    const auto upper = static_cast<std::uint16_t>(bits + 1);
    const double low = static_cast<double>(float_from_float16(lower));
    const double high = static_cast<double>(float_from_float16(upper));
    const auto middle = static_cast<float>((low + high) / 2);
    const std::uint16_t even = (bits & 1u) == 0 ? lower : upper;
    expect(float16_from_float(middle) == even, "float16 tie above %04x", bits);
    expect(float16_from_float(std::nextafter(middle, 0.0f)) == lower, "float16 below tie %04x",
           bits);
    expect(float16_from_float(std::nextafter(middle, INFINITY)) == upper, "float16 above tie %04x",
           bits);
  }
  expect(float16_from_float(65519.9f) == 0x7BFF && float16_from_float(65520.0f) == 0x7C00,
         "float16 overflow at the tie beyond the largest");
  expect(bfloat16_from_float(float_from_bits(0x3F808000)) == 0x3F80, "bfloat16 tie to even, down");
  expect(bfloat16_from_float(float_from_bits(0x3F818000)) == 0x3F82, "bfloat16 tie to even, up");
  expect(bfloat16_from_float(float_from_bits(0x3F808001)) == 0x3F81, "bfloat16 above the tie");
}

// Every row of the list by way of its element.
void elements_are_told_apart() {
  int count = 0;
  for (const DType dtype :
       {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kBool, DType::kInt8}) {
    const DType told = with_element(dtype, [](auto element) { return element_dtype(element); });
    expect(told == dtype, "%s is told apart", dtype_name(dtype));
    const auto size =
        with_element(dtype, [](auto element) { return static_cast<std::int64_t>(sizeof element); });
    expect(size == dtype_size(dtype), "%s has the size of its element", dtype_name(dtype));
    ++count;
  }
  expect(count == kDTypeCount, "all dtypes are tried");
  expect(to_float(1.5f) == 1.5f, "float32");
  expect(to_float(Float16{0x3E00}) == 1.5f, "float16");
  expect(to_float(BFloat16{0x3FC0}) == 1.5f, "bfloat16");
  expect(to_float(Int8{-128}) == -128.0f, "int8");
  expect(to_float(Bool{2}) == 1.0f && to_float(Bool{0}) == 0.0f, "any byte but 0 is true");
  expect(dtype_role(DType::kInt8) == Role::kScaled, "int8 has scales");
  expect(dtype_role(DType::kBool) == Role::kFlag, "bool is no number");
}

}  // namespace

int main() {
  elements_are_told_apart();
  every_pattern_comes_back();
  rounds_to_nearest_even();
  return report();
}
