// Exponentials over Vec. Constants are derived by tools/fit_polynomials.py.
#pragma once

namespace numattn {
namespace {

constexpr float kLog2E = 1.44269504088896340736f;
constexpr double kLn2 = 0.69314718055994530942;
constexpr float kInfinity = __builtin_inff();
constexpr float kLargest = 3.4028234663852886e38f;

// 2^x rounds to zero below 2^-150; a limit keeps −inf − floor(−inf) from making a NaN. At this one
// scale_by_floor() multiplies by zero (vec/avx2.h).
constexpr float kSmallestPower = -254.0f;

// Q(f) with 2^f = 1 + f · Q(f) on [0, 1], relative error 8.2e-8 (half a unit of float32).
inline Vec exp2_polynomial(Vec f) {
  Vec q = broadcast(0.0018671300495043397f);
  q = fma(q, f, broadcast(0.009017030708491802f));
  q = fma(q, f, broadcast(0.05579991266131401f));
  q = fma(q, f, broadcast(0.24016444385051727f));
  return fma(q, f, broadcast(0.6931512951850891f));
}

// 2^x for x < 127, NaN for NaN, subnormal results kept.
inline Vec exp2(Vec x) {
  const Vec f = fraction(x);
  return scale_by_floor(fma(exp2_polynomial(f), f, broadcast(1.0f)), x);
}

// The same on [−1/2, 1/2], where f · Q(f) is accurate relative to itself around 0; error 9.2e-8.
inline Vec exp2_polynomial_around_zero(Vec f) {
  Vec q = broadcast(0.001326472731307149f);
  q = fma(q, f, broadcast(0.009671512991189957f));
  q = fma(q, f, broadcast(0.05550733581185341f));
  q = fma(q, f, broadcast(0.24022242426872253f));
  return fma(q, f, broadcast(0.6931470036506653f));
}

// e^x − 1 for x <= 0, with relative accuracy near 0: 2^n·(2^f − 1) + (2^n − 1).
inline Vec expm1_nonpositive(Vec x) {
  const Vec power = max(broadcast(kSmallestPower), x * broadcast(kLog2E));
  const Vec whole = round(power);
  const Vec f = power - whole;
  const Vec two_to_whole = scale_by_floor(broadcast(1.0f), whole);
  return fma(two_to_whole, f * exp2_polynomial_around_zero(f), two_to_whole - broadcast(1.0f));
}

// tanh |x| = −e / (e + 2) with e = exp(−2|x|) − 1; no intermediate overflows.
inline Vec tanh(Vec x) {
  const Vec e = expm1_nonpositive(broadcast(-2.0f) * abs(x));
  const Vec magnitude = zero() - e / (e + broadcast(2.0f));
  return select(less(x, zero()), zero() - magnitude, magnitude);
}

}  // namespace
}  // namespace numattn
