// Activation functions over Vec, each with its formula.
#pragma once

#include "exp.h"
#include "kernels.h"

namespace numattn {
namespace {

// Phi(−t), the normal distribution's tail, for t >= 0: 2^h(t), h a minimax polynomial for
// log2 Phi(−t) on [0, 8] (tools/fit_polynomials.py; |t · error| <= 5e-8). Phi(−8) = 6e-16 is
// nothing beside float32: beyond 8 the tail is 0.
inline Vec normal_tail(Vec t) {
  const Vec limit = broadcast(8.0f);
  const Vec x = min(limit, t);
  Vec h = broadcast(1.314317756850869e-07f);
  h = fma(h, x, broadcast(-3.506852408463601e-06f));
  h = fma(h, x, broadcast(3.592364373616874e-05f));
  h = fma(h, x, broadcast(-0.0001515828334959224f));
  h = fma(h, x, broadcast(-0.00024266324180644006f));
  h = fma(h, x, broadcast(0.007219572551548481f));
  h = fma(h, x, broadcast(-0.0526135079562664f));
  h = fma(h, x, broadcast(-0.45916661620140076f));
  h = fma(h, x, broadcast(-1.1511106491088867f));
  h = fma(h, x, broadcast(-0.9999998807907104f));
  return select(less(limit, t), zero(), exp2(h));
}

// x · Phi(x) = x/2 · (1 + erf(x / √2))
inline Vec gelu(Vec x) {
  const Vec tail = normal_tail(abs(x));
  return x * select(less(x, zero()), tail, broadcast(1.0f) - tail);
}

// 1 / (1 + exp(−x)), by the exponential of −|x| alone: nothing overflows.
inline Vec sigmoid(Vec x) {
  const Vec e = exp2(abs(x) * broadcast(-kLog2E));
  const Vec small = e / (broadcast(1.0f) + e);
  return select(less(x, zero()), small, broadcast(1.0f) - small);
}

// x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))), and 1 + tanh(y) = 2 · sigmoid(2y)
inline Vec gelu_tanh(Vec x) {
  const Vec inner = fma(broadcast(0.044715f) * x * x, x, x);
  return x * sigmoid(broadcast(1.5957691216057308f) * inner);
}

inline Vec activated(Vec x, Activation activation) {
  switch (activation) {
    case Activation::kNone: break;
    case Activation::kRelu: return max(zero(), x);
    case Activation::kGelu: return gelu(x);
    case Activation::kGeluTanh: return gelu_tanh(x);
    case Activation::kSilu: return x * sigmoid(x);
  }
  return x;
}

}  // namespace
}  // namespace numattn
