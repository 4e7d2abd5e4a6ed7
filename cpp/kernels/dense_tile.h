// Masks and biases of a tile, brought from rows over keys to rows in lanes.
#pragma once

#include "exp.h"
#include "lane_group.h"

namespace numattn {
namespace {

// How much of a dense operand's tile excludes its key.
enum class Excluded { kNone, kSome, kAll };

// Bit j set where the row may attend key first + j, j < count.
inline std::uint64_t mask_row(const char* row, std::int64_t first, std::int64_t stride, int count) {
  const char* from = row + first * stride;
  if (stride == 1) return nonzero_bits(reinterpret_cast<const std::uint8_t*>(from), count);
  std::uint64_t bits = 0;
  for (int j = 0; j < count; ++j) bits |= static_cast<std::uint64_t>(from[j * stride] != 0) << j;
  return bits;
}

__attribute__((noinline)) inline Excluded gather_mask(const LaneGroup& group, KeyRange keys,
                                                      std::int64_t stride, std::int64_t mask_stride,
                                                      MaskBits* tile) {
  std::uint64_t allowed = 0;
  std::uint64_t refused = 0;
  for (int i = 0; stride == 1 && i < group.row_count; ++i) {  // the next tile's part of each row
    fetch_bytes(group.rows[i].mask + keys.end, keys.count());
  }
  for (std::int64_t j = 0; j < keys.count(); j += kMaskKeys) {
    const int count = keys.count() - j < kMaskKeys ? static_cast<int>(keys.count() - j) : kMaskKeys;
    const std::uint64_t present = ~std::uint64_t{0} >> (kMaskKeys - count);
    for (int v = 0; v < group.vectors; ++v) {
      std::uint64_t bits[Vec::kWidth];
      for (int i = 0; i < Vec::kWidth; ++i) {
        const int lane = v * Vec::kWidth + i;
        const int row = lane < group.row_count ? lane : group.row_count - 1;
        bits[i] = i > 0 && group.shared_mask
                      ? bits[0]
                      : mask_row(group.rows[row].mask, keys.begin + j, stride, count);
      }
      std::uint64_t by_all = present;  // in a loop of its own, which is done in vectors
      for (int i = 0; i < Vec::kWidth; ++i) {
        allowed |= bits[i];
        by_all &= bits[i];
      }
      refused |= by_all ^ present;
      transpose_bits(bits, tile + v * mask_stride + j);
    }
  }
  return allowed == 0 ? Excluded::kAll : refused == 0 ? Excluded::kNone : Excluded::kSome;
}

// Base-2 form of a natural bias. A finite one stays finite: the huge negative numbers that stand
// for "masked" in many models must weigh a row evenly when all of it is masked.
inline Vec bias_in_base2(Vec bias) {
  const Vec scaled = bias * broadcast(kLog2E);
  const Vec limited = min(broadcast(kLargest), max(broadcast(-kLargest), scaled));
  const Mask finite = less(abs(bias), broadcast(kInfinity));
  return select(finite, limited, scaled);
}

// 1 in lanes where some bias does not exclude its key.
inline Vec not_excluding(Vec bias, Vec others) {
  return select(equal(bias, broadcast(-kInfinity)), others, broadcast(1.0f));
}

// Elements of a row that are asked for ahead of those that are gathered: its part of the next tile
// of pairs. Zen 4, 12 heads of 1024 × 64, each with a bias of its own: float32 with 0 81, 32 85, 96
// 86, 192 86 GFLOP/s; bfloat16 114, 127, 130, 131.
constexpr int kBiasAhead = 96;

// A square of the tile, of rows whose elements lie side by side, from key `first` on.
template <class Element>
__attribute__((noinline)) inline Vec gather_bias_square(const QueryRow* rows, std::int64_t first,
                                                        Vec others, float* tile) {
  Vec square[Vec::kWidth];
#pragma GCC unroll 16
  for (int i = 0; i < Vec::kWidth; ++i) {
    const Element* from = reinterpret_cast<const Element*>(rows[i].bias) + first;
    square[i] = load(from);
    fetch_lines<1>(from + kBiasAhead);
    others = not_excluding(square[i], others);
  }
  transpose(square);
#pragma GCC unroll 16
  for (int k = 0; k < Vec::kWidth; ++k) store(tile + k * kLaneGroup, bias_in_base2(square[k]));
  return others;
}

// tile[key][lane] of the bias, in base 2; a bias that all rows share fills tile[key] instead.
// False: all of it is −inf. Lanes beyond the last row repeat it, so that they do not blur the
// answer.
inline bool gather_bias(const LaneGroup& group, KeyRange keys, const ScoreRules& rules,
                        float* tile) {
  Vec others = zero();
  const auto row_vector = [&](int row, std::int64_t j, int count) {
    const char* from = group.rows[row].bias + (keys.begin + j) * rules.bias_key_stride;
    const Vec values = read_elements(from, rules.bias_dtype, rules.bias_key_stride, count);
    const Mask present = mask_from_bits(static_cast<std::uint16_t>((1u << count) - 1u));
    others = select(present, not_excluding(values, others), others);
    return bias_in_base2(values);
  };
  const auto square_of = [&]() -> decltype(&gather_bias_square<float>) {
    if (group.shared_bias || rules.bias_key_stride != dtype_size(rules.bias_dtype)) return nullptr;
    return rules.bias_dtype == DType::kFloat32    ? gather_bias_square<float>
           : rules.bias_dtype == DType::kBFloat16 ? gather_bias_square<BFloat16>
                                                  : nullptr;
  }();
  const int lanes = group.shared_bias ? 1 : group.vectors * Vec::kWidth;
  for (int lane = 0; lane < lanes; lane += Vec::kWidth) {
    const bool whole = square_of != nullptr && lane + Vec::kWidth <= group.row_count;
    for (std::int64_t j = 0; j < keys.count(); j += Vec::kWidth) {
      const int count = lanes_left(j, keys.count());
      if (whole && count == Vec::kWidth) {
        others = square_of(group.rows + lane, keys.begin + j, others, tile + j * kLaneGroup + lane);
        continue;
      }
      if (group.shared_bias) {
        store_partial(tile + j, row_vector(0, j, count), count);
        continue;
      }
      Vec square[Vec::kWidth];
      for (int i = 0; i < Vec::kWidth; ++i) {
        const int row = lane + i < group.row_count ? lane + i : group.row_count - 1;
        square[i] = row_vector(row, j, count);
      }
      transpose(square);
      for (int k = 0; k < count; ++k) store(tile + (j + k) * kLaneGroup + lane, square[k]);
    }
  }
  return reduce_add(others) > 0.0f;
}

}  // namespace
}  // namespace numattn
