// Activation functions over Vec, each with its formula.
//
// Those that are x · s(x), s a function from 0 to 1 with s(x) = 1 − s(−x), all take one form:
//
//   x · s(x) = max(x, 0) − t · s(−t),   t = |x|
//
// which needs no choice between halves. It is right at the ends too: max(x, 0) keeps an x that is
// NaN, and so does t = min(limit, |x|); beyond the limit the tail is nothing beside float32.
//
// Where results are rounded to bfloat16, tails are as accurate as a tenth of such a rounding
// (2^-8).
#pragma once

#include <type_traits>

#include "exp.h"
#include "kernels.h"

namespace numattn {
namespace {

// 2^x for x < 127 with relative error 7.5e-5, by a cubic on [0, 1].
inline Vec exp2_near(Vec x) {
  const Vec f = fraction(x);
  Vec q = broadcast(0.07802452147006989f);
  q = fma(q, f, broadcast(0.22606715559959412f));
  q = fma(q, f, broadcast(0.6958335638046265f));
  return scale_by_floor(fma(q, f, broadcast(0.9999251961708069f)), x);
}

// What differs between results in float32 and those that are rounded to bfloat16. normal_tail(t) is
// Phi(−t), the normal distribution's tail, for 0 <= t <= kTailEnd: 2^h(t), h a minimax polynomial
// for log2 Phi(−t) (tools/fit_polynomials.py). Phi(−8) = 6e-16.
constexpr float kTailEnd = 8.0f;

struct Float32Results {
  static Vec power(Vec x) { return exp2(x); }
  // |t · error| <= 5e-8
  static Vec normal_tail(Vec t) {
    Vec h = broadcast(1.314317756850869e-07f);
    h = fma(h, t, broadcast(-3.506852408463601e-06f));
    h = fma(h, t, broadcast(3.592364373616874e-05f));
    h = fma(h, t, broadcast(-0.0001515828334959224f));
    h = fma(h, t, broadcast(-0.00024266324180644006f));
    h = fma(h, t, broadcast(0.007219572551548481f));
    h = fma(h, t, broadcast(-0.0526135079562664f));
    h = fma(h, t, broadcast(-0.45916661620140076f));
    h = fma(h, t, broadcast(-1.1511106491088867f));
    h = fma(h, t, broadcast(-0.9999998807907104f));
    return exp2(h);
  }
};

struct BFloat16Results {
  static Vec power(Vec x) { return exp2_near(x); }
  // Relative error 2.3e-4, and 7.5e-5 of the power.
  static Vec normal_tail(Vec t) {
    Vec h = broadcast(1.3207800293457694e-05f);
    h = fma(h, t, broadcast(-0.0004267833719495684f));
    h = fma(h, t, broadcast(0.005897744093090296f));
    h = fma(h, t, broadcast(-0.04699714481830597f));
    h = fma(h, t, broadcast(-0.46733036637306213f));
    h = fma(h, t, broadcast(-1.1470048427581787f));
    h = fma(h, t, broadcast(-1.0003305673599243f));
    return exp2_near(h);
  }
};

// x · Phi(x) = x/2 · (1 + erf(x / √2)). In float32 the tail is 0 beyond its end; for bfloat16 it
// stays at 6e-16, which spares a comparison: gelu(−∞) is −5e-15 there.
template <class Results>
inline Vec gelu(Vec x) {
  const Vec t = min(broadcast(kTailEnd), abs(x));
  Vec tail = Results::normal_tail(t);
  if constexpr (std::is_same_v<Results, Float32Results>) {
    tail = select(less(broadcast(kTailEnd), abs(x)), zero(), tail);
  }
  return negated_fma(t, tail, max(zero(), x));
}

// 1 / (1 + exp(t)), t >= 0: nothing overflows.
template <class Results>
inline Vec sigmoid_tail(Vec t) {
  const Vec e = Results::power(t * broadcast(-kLog2E));
  return e / (broadcast(1.0f) + e);
}

// x / (1 + exp(−x)); exp(−128) is 0 in float32.
template <class Results>
inline Vec silu(Vec x) {
  const Vec t = min(broadcast(128.0f), abs(x));
  return negated_fma(t, sigmoid_tail<Results>(t), max(zero(), x));
}

// x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))), and 1 + tanh(y) = 2 · sigmoid(2y); from 16 on the
// tail is 0.
template <class Results>
inline Vec gelu_tanh(Vec x) {
  const Vec t = min(broadcast(16.0f), abs(x));
  const Vec inner = fma(broadcast(0.044715f) * t * t, t, t);
  const Vec tail = sigmoid_tail<Results>(broadcast(1.5957691216057308f) * inner);
  return negated_fma(t, tail, max(zero(), x));
}

template <Activation kActivation, class Results>
inline Vec activated(Vec x) {
  switch (kActivation) {
    case Activation::kNone: break;
    case Activation::kRelu: return max(zero(), x);
    case Activation::kGelu: return gelu<Results>(x);
    case Activation::kGeluTanh: return gelu_tanh<Results>(x);
    case Activation::kSilu: return silu<Results>(x);
  }
  return x;
}

// call(Constant<activation>{})
template <Activation kActivation>
struct Constant {
  static constexpr Activation value = kActivation;
};
template <class Call>
inline void with_activation(Activation activation, const Call& call) {
  switch (activation) {
    case Activation::kNone: return call(Constant<Activation::kNone>{});
    case Activation::kRelu: return call(Constant<Activation::kRelu>{});
    case Activation::kGelu: return call(Constant<Activation::kGelu>{});
    case Activation::kGeluTanh: return call(Constant<Activation::kGeluTanh>{});
    case Activation::kSilu: return call(Constant<Activation::kSilu>{});
  }
}

// For results of that dtype.
inline Vec activated(Vec x, Activation activation, DType output) {
  with_activation(activation, [&](auto constant) {
    constexpr Activation kActivation = decltype(constant)::value;
    x = output == DType::kBFloat16 ? activated<kActivation, BFloat16Results>(x)
                                   : activated<kActivation, Float32Results>(x);
  });
  return x;
}

}  // namespace
}  // namespace numattn
