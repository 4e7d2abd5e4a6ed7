// Tiles multiplied in float32: elements of any type, read where they lie or converted tile by tile.
//
// A tile's sums start from zero and are then added to the state, so that rounding grows with the
// square root of a tile's keys and of the number of tiles, not of all keys.
//
// Not kept: rescaling O only where the peak rose. The factor α enters with the addition that the
// tile needs anyway, one fused multiply-add per element, so there is no pass to save.
#pragma once

#include "attend.h"
#include "relative.h"

namespace numattn {
namespace {

// scores[key][lane] = query · key for the tile. While keys multiply, the next ones and the values
// of these are fetched.
inline void multiply_keys(const LaneGroup& group, FloatRows key, FloatRows value,
                          std::int64_t key_count, const AttendBlock& block, float* scores) {
  multiply_each(group.vectors, {key, key_count, block.head_dim, group.query, kLaneGroup, scores,
                                kLaneGroup, block.fetch_ahead, value, block.value_dim});
}

// output[d][lane] = α · output[d][lane] + Σ_j value[j][d] · weight[j][lane]
template <int Vectors>
inline void add_values(FloatRows value, std::int64_t key_count, std::int64_t value_dim,
                       const float* weights, const Vec (&alpha)[Vectors], float* output) {
  for (std::int64_t d = 0; d < value_dim; d += kTileRows) {
    const int rows = value_dim - d < kTileRows ? static_cast<int>(value_dim - d) : kTileRows;
    float* to = output + d * kLaneGroup;
    const auto finish = [to, &alpha](int m, int v, Vec sum) {
      float* at = to + m * kLaneGroup + v * Vec::kWidth;
      store(at, fma(load(at), alpha[v], sum));
    };
    multiply_rows<Vectors>(
        rows, TileOperands{key_count, value.data + d, 1, value.stride, weights, kLaneGroup},
        finish);
  }
}

// The same for a tile that holds an infinity or a NaN among its values while some rows do not see
// all of its keys: a product with weight 0 would carry it to rows that must not know of it.
// seen.visible(j, v) says which lanes of vector v see value j.
template <class Seen>
__attribute__((noinline)) void add_visible_values(FloatRows value, std::int64_t key_count,
                                                  std::int64_t value_dim, const float* weights,
                                                  const Vec* alpha, const Seen& seen, int vectors,
                                                  float* output) {
  for (int v = 0; v < vectors; ++v) {
    for (std::int64_t d = 0; d < value_dim; ++d) {
      float* at = output + d * kLaneGroup + v * Vec::kWidth;
      Vec sum = zero();
      for (std::int64_t j = 0; j < key_count; ++j) {
        const Vec weight = load(weights + j * kLaneGroup + v * Vec::kWidth);
        const Vec added = fma(broadcast(value.data[j * value.stride + d]), weight, sum);
        sum = select(seen.visible(j, v), added, sum);
      }
      store(at, fma(load(at), alpha[v], sum));
    }
  }
}

// output[d][lane] += Σ_j value_table[row(δ)][d] · weight[j][lane], after the values were added.
template <int Vectors>
__attribute__((noinline)) void add_relative_values(const AttendBlock& block, const LaneGroup& group,
                                                   KeyRange keys, const FloatWorkspace& work,
                                                   float* output) {
  const TileSlots slots = weighed_slots(group, keys, work);
  const std::int64_t width = block.value_dim;
  const FloatRows rows = slot_rows(block.relative.value_table, width, slots, work.relative.table);
  Vec kept[Vectors];
  for (int v = 0; v < Vectors; ++v) kept[v] = broadcast(1.0f);
  if (has_nonfinite(rows, slots.count, width)) {
    const LaneSlots seen(group, keys, slots);
    add_visible_values(rows, slots.count, width, work.relative.slot, kept, seen, Vectors, output);
  } else {
    add_values(rows, slots.count, width, work.relative.slot, kept, output);
  }
}

class FloatTiles {
 public:
  struct Tile {
    KeyRange keys;
    FloatRows key;
    FloatRows value;
  };

  static constexpr float kShiftSlack = 0.0f;
  static constexpr int kWeightStep = 1;

  FloatTiles(const AttendBlock& block, const TileFacts& facts)
      : block_(block), areas_(block.workspace), work_(areas_, facts, block.needs) {}

  const FloatWorkspace& work() const { return work_; }
  std::int64_t row_floats() const { return block_.head_dim; }

  void pack(int first, int rows) {
    const std::int64_t at = first * row_floats();
    pack_queries(block_, block_.rows + first, rows, work_.query + at);
    add_query_biases(block_, rows, work_.query + at, work_.relative.position_query + at);
  }

  Tile prepare(KeyRange keys, std::int64_t) {
    const FloatRows key = float_rows(block_.key, keys, block_.head_dim, work_.key);
    if (block_.value_dim <= block_.head_dim && begin_alike(block_.key, block_.value)) {
      return {keys, key, key};
    }
    return {keys, key, float_rows(block_.value, keys, block_.value_dim, work_.value)};
  }

  KeyRange multiplied(KeyRange keys) const { return keys; }

  template <int Vectors>
  void scores(const LaneGroup& group, const Tile& tile, KeyRange keys) {
    const FloatRows key = rows_of(tile.key, tile, keys);
    multiply_keys(group, key, rows_of(tile.value, tile, keys), keys.count(), block_, work_.score);
    if (is_relative()) add_relative_scores(block_, group, keys, key, work_);
  }

  Vec in_base2(Vec score) const { return score; }
  void settle(int, Vec, std::int64_t) const {}

  __attribute__((always_inline)) Vec weigh(std::int64_t j, int v, Vec shift) {
    float* at = work_.score + j * kLaneGroup + v * Vec::kWidth;
    const Vec weight = exp2(load(at) - shift);
    store(at, weight);
    return weight;
  }

  template <int Vectors>
  void add(const LaneGroup& group, const Tile& tile, KeyRange keys, const Rescaling<Vectors>& old,
           float* output) {
    const FloatRows value = rows_of(tile.value, tile, keys);
    const std::int64_t width = block_.value_dim;
    if (!group.seen.all && has_nonfinite(value, keys.count(), width)) {
      add_visible_values(value, keys.count(), width, work_.score, old.alpha, LaneSpans(group, keys),
                         Vectors, output);
    } else {
      add_values<Vectors>(value, keys.count(), width, work_.score, old.alpha, output);
    }
    if (is_relative() && block_.relative.value_table != nullptr) {
      add_relative_values<Vectors>(block_, group, keys, work_, output);
    }
  }

 private:
  bool is_relative() const { return block_.relative.distance_rows != nullptr; }
  static FloatRows rows_of(FloatRows rows, const Tile& tile, KeyRange keys) {
    return {rows.data + (keys.begin - tile.keys.begin) * rows.stride, rows.stride};
  }

  const AttendBlock& block_;
  Areas areas_;
  FloatWorkspace work_;
};

}  // namespace
}  // namespace numattn
