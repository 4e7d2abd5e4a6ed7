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

__attribute__((noinline)) Excluded gather_mask(const LaneGroup& group, KeyRange keys,
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

// tile[key][lane] of the bias; a bias that all rows share fills tile[key] instead. False: all of it
// is −inf. Lanes beyond the last row repeat it, so that they do not blur the answer.
inline bool gather_bias(const LaneGroup& group, KeyRange keys, const ScoreRules& rules,
                        float* tile) {
  const Vec excluding = broadcast(-kInfinity);
  Vec others = zero();
  const auto row_vector = [&](int row, std::int64_t j, int count) {
    const char* from = group.rows[row].bias + (keys.begin + j) * rules.bias_key_stride;
    const Vec values = read_elements(from, rules.bias_dtype, rules.bias_key_stride, count);
    const Mask present = mask_from_bits(static_cast<std::uint16_t>((1u << count) - 1u));
    const Vec other = select(equal(values, excluding), zero(), broadcast(1.0f));
    others = others + select(present, other, zero());
    return values;
  };
  const int lanes = group.shared_bias ? 1 : group.vectors * Vec::kWidth;
  for (int lane = 0; lane < lanes; lane += Vec::kWidth) {
    for (std::int64_t j = 0; j < keys.count(); j += Vec::kWidth) {
      const int count = lanes_left(j, keys.count());
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
