// The softmax of 32 rows, from body to body, in base 2.
//
// Weights are 2^(s · factor − shift), and the shift of a row lags: its first body sets it 7 above
// the largest score, so that weights begin at 2^-7, and it stays until a weight reaches 2, which
// one test of the weights written tells. Only then do the rows concerned get a new shift, their
// sums are scaled, and their weights made anew. A row's own scores decide, so that none depends on
// its neighbours.
//
// The exponent factor · s − shift is rounded once, while the shift is a rounded product: beyond
// kFarShift half a unit of it could be whole powers of two. Rows that are so far have their largest
// score so far subtracted first, and no lag.
#pragma once

#include "pipeline.h"
#include "softmax.h"
#include "two_sum.h"

namespace numattn {
namespace {

constexpr float kShiftAbove = 7.0f;
constexpr float kFarShift = 0x1p23f;

// Sums of a row's weights lie in lanes until the end.
constexpr int kSumFloats = kBodyRows * Vec::kWidth;

// How exact weights are. bfloat16 rounds them anyway: then coarse ones do, unless their sums are
// results. The lse is one, and has finer sums beside, so that to ask for it changes no bit of o.
enum class Exactness { kCoarse, kFine, kCoarseWithFineSums };

// From a state's sums of weights to those of finer ones.
constexpr int kToFineSums = 4 * kSumFloats;
constexpr int kStateSums = 2 * kToFineSums;  // before a body and behind it, and apart in two floats

// What has been seen of 32 rows.
struct RowsState {
  float minus_shift[kBodyRows];
  float base[kBodyRows];  // of far rows: what is subtracted from their scores
  std::uint32_t unset;    // rows that have no shift yet
  std::uint32_t far;
  float* sums[2];  // weights before a body and behind it take turns
  int side;
  float* output;  // tiles of 16 rows × 16 columns, the upper 16 rows' before the lower ones'
  bool started;   // whether there is an output yet
  // What has been added up apart, as two floats each: values that are infinite, NaN or very small,
  // which tiles would spread to rows that do not see them, or lose; and the sums of chunks before.
  float* apart;
  float* apart_rest;
  float* sums_apart;
  float* sums_rest;
  bool has_apart;
  std::int64_t chunk;  // of the keys that are being summed; negative: none yet

  // The area of what is apart holds two outputs.
  void begin(int row_count, std::int64_t columns, float* sum_area, float* output_area,
             float* apart_area) {
    for (int r = 0; r < kBodyRows; ++r) minus_shift[r] = base[r] = 0.0f;
    unset = row_count == kBodyRows ? ~0u : (1u << row_count) - 1u;
    far = 0;
    sums[0] = sum_area;
    sums[1] = sum_area + kSumFloats;
    side = 0;
    clear(kSumFloats, sums[0]);
    clear(2 * kSumFloats, sums[0] + kToFineSums);
    output = output_area;
    started = false;
    apart = apart_area;
    apart_rest = apart_area + kBodyRows * columns;
    sums_apart = sum_area + 2 * kSumFloats;
    sums_rest = sum_area + 3 * kSumFloats;
    has_apart = false;
    chunk = -1;
  }

  void begin_apart(std::int64_t columns) {
    if (has_apart) return;
    has_apart = true;
    clear(2 * kBodyRows * columns, apart);
    clear(2 * kSumFloats, sums_apart);
    clear(2 * kSumFloats, sums_apart + kToFineSums);
  }
  // What has been summed joins what is apart, and begins anew.
  void set_sums_apart(std::int64_t columns) {
    begin_apart(columns);
    for (int kind = 0; kind <= kToFineSums; kind += kToFineSums) {
      add(kSumFloats, sums[side] + kind, sums_apart + kind, sums_rest + kind);
      clear(kSumFloats, sums[side] + kind);
    }
  }
  void set_output_apart(std::int64_t columns) {
    begin_apart(columns);
    if (started) add(kBodyRows * columns, output, apart, apart_rest);
    started = false;
  }
  // Both together, in the end.
  void join_apart(std::int64_t columns) {
    if (!has_apart) return;
    set_output_apart(columns);
    join(kBodyRows * columns, apart, apart_rest, output);
    set_sums_apart(columns);
    for (int kind = 0; kind <= kToFineSums; kind += kToFineSums) {
      join(kSumFloats, sums_apart + kind, sums_rest + kind, sums[side] + kind);
    }
  }
  static void clear(std::int64_t count, float* area) {
    for (std::int64_t i = 0; i < count; i += Vec::kWidth) store(area + i, zero());
  }
  static void add(std::int64_t count, const float* from, float* high, float* low) {
    for (std::int64_t i = 0; i < count; i += Vec::kWidth)
      add_term_to(load(from + i), high + i, low + i);
  }
  static void join(std::int64_t count, const float* high, const float* low, float* to) {
    for (std::int64_t i = 0; i < count; i += Vec::kWidth)
      store(to + i, sum_of(load(high + i), load(low + i)));
  }
  // Where element d of row r stands in an output of so many columns.
  static std::int64_t place(std::int64_t columns, int r, std::int64_t d) {
    return r / kAmxRows * columns * kAmxRows + d / kAmxRowFloats * kTileFloats +
           r % kAmxRows * kAmxRowFloats + d % kAmxRowFloats;
  }

  bool is_far(int r) const { return (far >> r & 1u) != 0; }
  bool is_unset(int r) const { return (unset >> r & 1u) != 0; }

  // The shift of a row, exactly.
  double shift(int r, float factor) const {
    if (!is_far(r)) return -static_cast<double>(minus_shift[r]);
    return static_cast<double>(base[r]) * static_cast<double>(factor) + kShiftAbove;
  }

  // Of a row whose largest score is `largest`, `near` being 7 above it, negative.
  void set_shift(int r, float largest, float near) {
    unset &= ~(1u << r);
    far &= ~(1u << r);
    base[r] = 0.0f;
    minus_shift[r] = near;
    if (__builtin_fabsf(near) <= kFarShift) return;
    far |= 1u << r;
    base[r] = largest;
    minus_shift[r] = -kShiftAbove;
  }
};

// 2^f on [0, 1]: of degree 5 that of exp.h; of degree 3, for weights that bfloat16 rounds anyway,
// with relative error 8.6e-5, and 1 exactly at 0.
template <int Degree>
class PowerOfFraction {
 public:
  NUMATTN_INLINE inline Vec operator()(Vec f) const {
    if constexpr (Degree == 5) {
      return fma(exp2_polynomial(f), f, broadcast(1.0f));
    } else {
      static_assert(Degree == 3, "fitted degrees");
      return fma(fma(fma(cubic_, f, square_), f, linear_), f, one_);
    }
  }

 private:
  const Vec cubic_ = in_register(broadcast(0.07706703990697861f));
  const Vec square_ = in_register(broadcast(0.22764499485492706f));
  const Vec linear_ = in_register(broadcast(0.6951167583465576f));
  const Vec one_ = in_register(broadcast(1.0f));
};

// Bodies of a unit at most, as many as keep their weights in the first-level cache; elements from
// one row of a unit's weights to the next, an odd number of cache lines, so that all sets are used.
constexpr int kMostUnitBodies = 4;
constexpr int kWeightsRow = kMostUnitBodies * kBodyKeys + 32;
constexpr int kUnitWeights = kBodyRows * kWeightsRow;

// One body's scores, rows of 64, and where its weights go: rows of kWeightsRow, the low parts
// kUnitWeights behind the high ones.
struct BodyRows {
  float* scores;
  std::uint16_t* weights;
  const std::uint64_t* visible;  // the keys that each row sees; null: all
  const float* minus_shift;
  const float* sums_before;
  float* sums_behind;
  float factor;

  float* row(int r) const { return scores + r * kBodyKeys; }
  Mask sees(int r, int vector) const {
    return mask_from_bits(static_cast<std::uint16_t>(visible[r] >> (Vec::kWidth * vector)));
  }
};

// Makes the weights of rows, one after the other.
template <int Parts, Exactness Weights, bool Masked>
class SoftRows {
 public:
  using Operands = BodyRows;
  static constexpr bool kAny = true;

  explicit SoftRows(const BodyRows& body)
      : body_(body), factor_(in_register(broadcast(body.factor))) {}

  NUMATTN_INLINE inline void next() {
    const Vec minus_shift = broadcast(*body_.minus_shift);
    Vec sum = load(body_.sums_before);
    Vec fine_sum = kFineSums ? load(body_.sums_before + kToFineSums) : zero();
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      Vec fine_even, fine_odd;
      const Vec even = weigh(2 * half, minus_shift, fine_even);
      const Vec odd = weigh(2 * half + 1, minus_shift, fine_odd);
      sum = sum + (even + odd);
      if constexpr (kFineSums) fine_sum = fine_sum + (fine_even + fine_odd);
      const Vec rounded_even = round_.added_to(even);
      const Vec rounded_odd = round_.added_to(odd);
      const Pairs high = round_.join(rounded_even, rounded_odd);
      std::uint16_t* to = body_.weights + half * 2 * Vec::kWidth;
      store_pairs(to, high);
      written_ = written_ | high;
      if constexpr (Parts == 2) {
        store_pairs(to + kUnitWeights, round_.join(round_.added_to(even - high_half(rounded_even)),
                                                   round_.added_to(odd - high_half(rounded_odd))));
      }
    }
    store(body_.sums_behind, sum);
    if constexpr (kFineSums) store(body_.sums_behind + kToFineSums, fine_sum);
    skip(1);
  }

  NUMATTN_INLINE inline void skip(int rows) {
    body_.scores += rows * kBodyKeys;
    body_.weights += rows * kWeightsRow;
    if (Masked) body_.visible += rows;
    body_.minus_shift += rows;
    body_.sums_before += rows * Vec::kWidth;
    body_.sums_behind += rows * Vec::kWidth;
  }

  // Whether a weight has reached 2.
  bool result() const { return any_from_two(written_); }

 private:
  static constexpr bool kFineSums = Weights == Exactness::kCoarseWithFineSums;
  static constexpr int kDegree = Weights == Exactness::kFine ? 5 : 3;

  NUMATTN_INLINE inline Vec weigh(int vector, Vec minus_shift, Vec& fine) const {
    const Vec exponent = fma(load(body_.scores + Vec::kWidth * vector), factor_, minus_shift);
    const Vec f = fraction(exponent);
    if constexpr (kFineSums) fine = scale(vector, PowerOfFraction<5>()(f), exponent);
    return scale(vector, power_(f), exponent);
  }
  NUMATTN_INLINE inline Vec scale(int vector, Vec power, Vec exponent) const {
    if constexpr (Masked) return scale_by_floor(body_.sees(0, vector), power, exponent);
    return scale_by_floor(power, exponent);
  }

  BodyRows body_;
  const Vec factor_;
  const PowerOfFraction<kDegree> power_{};
  const HalfUp round_{};
  Pairs written_ = no_pairs();  // all high parts, one over the other
};

// Lane r = the largest score that row 16 · group + r sees.
inline Vec largest_of_rows(const BodyRows& body, int group) {
  Vec rows[kAmxRows];
  for (int i = 0; i < kAmxRows; ++i) {
    const int r = group * kAmxRows + i;
    const float* from = body.row(r);
    if (body.visible == nullptr) {
      rows[i] = max(max(load(from), load(from + Vec::kWidth)),
                    max(load(from + 2 * Vec::kWidth), load(from + 3 * Vec::kWidth)));
      continue;
    }
    rows[i] = broadcast(-kInfinity);
    for (int v = 0; v < kBodyKeys / Vec::kWidth; ++v) {
      rows[i] = select(body.sees(r, v), max(load(from + v * Vec::kWidth), rows[i]), rows[i]);
    }
  }
  return max_of_each(rows);
}

inline float largest_of_row(const BodyRows& body, int r) {
  Vec largest = broadcast(-kInfinity);
  for (int v = 0; v < kBodyKeys / Vec::kWidth; ++v) {
    const Vec score = max(load(body.row(r) + v * Vec::kWidth), largest);
    largest = body.visible == nullptr ? score : select(body.sees(r, v), score, largest);
  }
  return reduce_max(largest);
}

inline void subtract_base(const RowsState& state, const BodyRows& body, int r) {
  const Vec base = broadcast(state.base[r]);
  for (int v = 0; v < kBodyKeys / Vec::kWidth; ++v) {
    float* at = body.row(r) + v * Vec::kWidth;
    store(at, load(at) - base);
  }
}

inline float near_shift(float largest, float factor) {
  return __builtin_fmaf(largest, -factor, -kShiftAbove);
}

// The shifts of rows that see their first keys.
__attribute__((noinline)) void set_first_shifts(RowsState& state, const BodyRows& body,
                                                float factor) {
  float largest[kBodyRows];
  float near[kBodyRows];
  bool all_near = body.visible == nullptr;
  for (int group = 0; group < 2; ++group) {
    const Vec here = largest_of_rows(body, group);
    const Vec shift = fma(here, broadcast(-factor), broadcast(-kShiftAbove));
    store(largest + group * kAmxRows, here);
    store(near + group * kAmxRows, shift);
    all_near &= !any(less(broadcast(kFarShift), abs(shift)));
  }
  for (int r = 0; r < kBodyRows; ++r) {
    if (!state.is_unset(r) || largest[r] == -kInfinity) continue;
    if (all_near) {
      state.minus_shift[r] = near[r];
      continue;
    }
    state.set_shift(r, largest[r], near[r]);
    if (state.is_far(r)) subtract_base(state, body, r);
  }
  if (all_near) state.unset = 0;
}

// Gives a row a shift for what it has seen by now, and scales the sums of what it saw before:
// those of its weights at `sums`, and its output of so many columns.
inline void move_shift(RowsState& state, int r, float largest, float factor, float* sums,
                       std::int64_t output_columns) {
  const double before = state.shift(r, factor);
  state.set_shift(r, largest, near_shift(largest, factor));
  const Vec scale = broadcast(std::exp2(static_cast<float>(before - state.shift(r, factor))));
  store(sums, load(sums) * scale);
  store(sums + kToFineSums, load(sums + kToFineSums) * scale);
  if (state.has_apart) {
    for (int kind = 0; kind <= kToFineSums; kind += kToFineSums) {
      float* at = state.sums_apart + kind + r * Vec::kWidth;
      float* rest = state.sums_rest + kind + r * Vec::kWidth;
      store(at, load(at) * scale);
      store(rest, load(rest) * scale);
    }
  }
  for (std::int64_t d = 0; d < output_columns; d += kAmxRowFloats) {
    const std::int64_t at = RowsState::place(output_columns, r, d);
    if (state.started) store(state.output + at, load(state.output + at) * scale);
    if (!state.has_apart) continue;
    store(state.apart + at, load(state.apart + at) * scale);
    store(state.apart_rest + at, load(state.apart_rest + at) * scale);
  }
}

// Whether a row's weights of this body reach 2.
inline bool reaches_two(const BodyRows& body, int r) {
  const std::uint16_t* weights = body.weights + r * kWeightsRow;
  return any_from_two(load_pairs(weights) | load_pairs(weights + 2 * Vec::kWidth));
}

}  // namespace
}  // namespace numattn
