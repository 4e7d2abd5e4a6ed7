// bfloat16 operands of the products of pair_tiles.h and pair_panels.h.
//
//   sum[m][n] (+)= Σ_t Σ_k a_t[m][2k] · b_t[k][n].even + a_t[m][2k + 1] · b_t[k][n].odd
//
// a: rows of bfloat16 with the depth contiguous: keys as they lie, values transposed, rows of x.
// b: pairs along the depth, kLaneGroup lanes to a step: queries transposed, weights, panels.
//
// A float32 operand becomes the sum of two bfloat16, x = high + low + O(2^-17 x), and a product
// three: high·high + high·low + low·high. What is left out is O(2^-16) of it. An infinity or a NaN
// is all in the low part, beside a high one of 0, and so meets the other operand once: times its
// low part as well, an infinity would become NaN.
#pragma once

#include "score.h"
#include "score_factor.h"

namespace numattn {
namespace {

constexpr int kPairLanes = 2 * kLaneGroup;  // bfloat16 elements of one step of b

struct PairTerm {
  const std::uint16_t* a;
  std::int64_t a_row;  // elements from row to row
  const std::uint16_t* b;
};

// The terms of a product of operands in `Parts` parts each, high first: one term or three.
template <int Parts>
constexpr int kTerms = Parts == 1 ? 1 : 3;
template <int Parts>
struct PairProduct {
  std::int64_t depth;  // elements, a multiple of kDepthStep
  PairTerm terms[kTerms<Parts>];
};

// Where the parts of an operand lie: part p at data + p · part_stride.
struct PairOperand {
  const std::uint16_t* data;
  std::int64_t part_stride;
};

template <int Parts>
inline PairProduct<Parts> product_of(PairOperand a, std::int64_t a_row, PairOperand b,
                                     std::int64_t depth) {
  if constexpr (Parts == 1) {
    return {depth, {{a.data, a_row, b.data}}};
  } else {
    return {depth,
            {{a.data, a_row, b.data},
             {a.data, a_row, b.data + b.part_stride},
             {a.data + a.part_stride, a_row, b.data}}};
  }
}

// Rows of a of bfloat16; of float32 elements, the parts of each.
struct PairRows {
  PairOperand parts;
  std::int64_t stride;  // elements from row to row
};

// A row of a copied operand a: whole vectors can be written to it, and every unit's steps read.
inline std::int64_t copied_row(std::int64_t width) { return (width + 31) / 32 * 32; }

inline bool reads_pairs_in_place(const Matrix& matrix) {
  return matrix.dtype == DType::kBFloat16 && matrix.column_stride == 2 &&
         matrix.row_stride % 2 == 0 && reinterpret_cast<std::uintptr_t>(matrix.data) % 2 == 0;
}

// copy[column] = a row's parts, rounded; 0 beyond its `width`, up to `stride`.
template <int Parts, class Read>
inline void copy_pair_row(const char* from, std::int64_t column_stride, std::int64_t width,
                          std::int64_t stride, std::int64_t part_stride, const Read& read,
                          std::uint16_t* copy) {
  for (std::int64_t column = 0; column < stride; column += Vec::kWidth) {
    const int count = column < width ? lanes_left(column, width) : 0;
    Vec rest = count > 0 ? read(from + column * column_stride, count) : zero();
    for (int p = 0; p < Parts; ++p) {
      auto* to = reinterpret_cast<BFloat16*>(copy + p * part_stride + column);
      const bool is_last = p + 1 == Parts;
      store(to, is_last ? rest : finite_or_zero(rest));
      if (!is_last) rest = rest - load(to);
    }
  }
}

// Elements up to whole steps of the depth.
inline std::int64_t round_up(std::int64_t count, std::int64_t step) {
  return (count + step - 1) / step * step;
}

}  // namespace
}  // namespace numattn
