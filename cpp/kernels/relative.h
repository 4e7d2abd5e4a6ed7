// Terms by distance inside a tile; RelativeBlock (kernels.h) says which.
//
// The C keys of a tile and the L lanes of a group meet at C + L − 1 distances, counted by
//
//   t = lane − j + C − 1,   δ = δ(0) + t,   0 <= t < C + L − 1
//
// Neighbouring t that have the same row of the tables share a *slot*: a product with a table is
// computed once for each slot, slot_of[t] rises by 0 or 1, and a tile far beyond the ends of the
// tables has a single slot.
//
// A product of queries lies as [slot][lane]. What key j needs of it is a diagonal: t = lane − j +
// C − 1. `shear_slots` makes rows of the diagonals by moving lane i by i rows, one bit of i after
// the other: four selections for 16 lanes, where gathering takes sixteen loads. `weigh_slots` goes
// the other way, from weights to their sums by slot. A product of keys lies as [key][slot], where
// the lanes of a key are neighbours already.
//
// Each product is one chain in order of the elements, and each sum of weights in order of t, so
// that a row does not depend on the rows beside it: their slots add 0 to it.
#pragma once

#include "row_products.h"
#include "score.h"

namespace numattn {
namespace {

// Positions are limited to this, and tables end at half of it (api/check_relative.cpp), so that
// differences fit 64 bits and a position beyond means what the limit means.
constexpr std::int64_t kFarthestPosition = std::int64_t{1} << 61;

constexpr int kLaneBits = Vec::kWidth == 16 ? 4 : Vec::kWidth == 8 ? 3 : 2;
static_assert(1 << kLaneBits == Vec::kWidth, "a vector of another width");

// Lanes whose number has that bit.
inline Mask lanes_with_bit(int bit) {
  unsigned bits = 0;
  for (unsigned lane = 0; lane < Vec::kWidth; ++lane) bits |= (lane >> bit & 1u) << lane;
  return mask_from_bits(static_cast<std::uint16_t>(bits));
}

// The slots of a tile, for whole vectors of lanes; lanes beyond the last row repeat its distances.
struct TileSlots {
  const std::int64_t* row;  // [slot] row of the tables
  const std::int32_t* of;   // [t]
  int count;
};

inline int tile_distances(const LaneGroup& group, KeyRange keys) {
  return static_cast<int>(keys.count()) + group.vectors * Vec::kWidth - 1;
}

inline TileSlots find_slots(const RelativeBlock& relative, const LaneGroup& group, KeyRange keys,
                            const FloatWorkspace& work) {
  const std::int64_t given = group.rows[0].position;
  const std::int64_t position = given > kFarthestPosition    ? kFarthestPosition
                                : given < -kFarthestPosition ? -kFarthestPosition
                                                             : given;
  const std::int64_t first = position - (keys.begin + keys.count() - 1) - relative.first_distance;
  const std::int64_t last = keys.count() + group.row_count - 2;
  const std::int64_t end = relative.distance_count - 1;
  int count = 0;
  for (int t = 0; t < tile_distances(group, keys); ++t) {
    const std::int64_t index = first + (t < last ? t : last);
    const std::int64_t row = relative.distance_rows[index < 0 ? 0 : index > end ? end : index];
    if (t == 0 || row != work.relative.slot_row[count - 1]) work.relative.slot_row[count++] = row;
    work.relative.slot_of[t] = count - 1;
  }
  return {work.relative.slot_row, work.relative.slot_of, count};
}

// What find_slots() found for the tile before.
inline TileSlots found_slots(const LaneGroup& group, KeyRange keys, const FloatWorkspace& work) {
  return {work.relative.slot_row, work.relative.slot_of,
          work.relative.slot_of[tile_distances(group, keys) - 1] + 1};
}

// The slots' rows of a table: where they lie, if they are evenly apart, or else copied.
inline FloatRows slot_rows(const float* table, std::int64_t width, const TileSlots& slots,
                           float* copy) {
  const std::int64_t step = slots.count > 1 ? slots.row[1] - slots.row[0] : 0;
  bool even = true;
  for (int s = 1; s < slots.count; ++s) even &= slots.row[s] - slots.row[s - 1] == step;
  if (even) return {table + slots.row[0] * width, step * width};
  const std::int64_t stride = padded_floats(width);
  for (int s = 0; s < slots.count; ++s) {
    __builtin_memcpy(copy + s * stride, table + slots.row[s] * width,
                     static_cast<std::size_t>(width) * sizeof(float));
  }
  return {copy, stride};
}

// From packed = scale · log2 e · q, position_packed = scale · log2 e · (q + position_bias), and
// packed itself becomes scale · log2 e · (q + content_bias).
__attribute__((noinline)) void add_query_biases(const AttendBlock& block, int row_count,
                                                float* packed, float* position_packed) {
  const RelativeBlock& relative = block.relative;
  if (relative.content_bias == nullptr && relative.position_bias == nullptr) return;
  const Vec factor = broadcast(block.rules.scale * kLog2E);
  const auto biased_query = [&](const float* bias, std::int64_t d, Vec query) {
    return bias == nullptr ? query : fma(broadcast(bias[d]), factor, query);
  };
  for (std::int64_t d = 0; d < block.head_dim; ++d) {
    for (int lane = 0; lane < row_count; lane += Vec::kWidth) {
      const std::int64_t at = d * kLaneGroup + lane;
      const Vec query = load(packed + at);
      store(position_packed + at, biased_query(relative.position_bias, d, query));
      store(packed + at, biased_query(relative.content_bias, d, query));
    }
  }
}

inline const float* position_queries(const RelativeBlock& relative, const LaneGroup& group,
                                     const FloatWorkspace& work) {
  const bool apart = relative.content_bias != nullptr || relative.position_bias != nullptr;
  return apart ? work.relative.position_query + (group.query - work.query) : group.query;
}

// Calls write(τ, x) for 0 <= τ < count with x[i] = by_slot[slot_of[τ + lane]][lane], lane the i-th
// of vector v: the numbers of key count − 1 − τ.
template <class Write>
inline void shear_slots(const TileSlots& slots, std::int64_t count, int v, const float* by_slot,
                        float* rows, const Write& write) {
  const std::int32_t* of = slots.of + v * Vec::kWidth;
  const float* column = by_slot + v * Vec::kWidth;
  const auto row = [rows](std::int64_t i) { return rows + i * Vec::kWidth; };
  Mask moved = lanes_with_bit(0);
  Vec next = load(column + of[0] * kLaneGroup);
  for (std::int64_t i = 0; i < count + Vec::kWidth - 2; ++i) {
    const Vec here = next;
    next = load(column + of[i + 1] * kLaneGroup);
    store(row(i), select(moved, next, here));
  }
  for (int bit = 1; bit < kLaneBits - 1; ++bit) {
    const int by = 1 << bit;
    moved = lanes_with_bit(bit);
    for (std::int64_t i = 0; i < count + Vec::kWidth - 2 * by; ++i) {
      store(row(i), select(moved, load(row(i + by)), load(row(i))));
    }
  }
  moved = lanes_with_bit(kLaneBits - 1);
  for (std::int64_t i = 0; i < count; ++i) {
    write(i, select(moved, load(row(i + Vec::kWidth / 2)), load(row(i))));
  }
}

// scores[key][lane] += query · query_table
inline void add_query_terms(const AttendBlock& block, const LaneGroup& group, KeyRange keys,
                            const TileSlots& slots, const FloatWorkspace& work) {
  const RelativeWorkspace& areas = work.relative;
  const FloatRows table = slot_rows(block.relative.query_table, block.head_dim, slots, areas.table);
  const float* query = position_queries(block.relative, group, work);
  multiply_each(group.vectors, {table,
                                slots.count,
                                block.head_dim,
                                query,
                                kLaneGroup,
                                areas.slot,
                                kLaneGroup,
                                false,
                                {},
                                0});
  if (slots.count == 1) {
    change_scores(group, keys.count(), work.score, [&](std::int64_t, int v, Vec score) {
      return score + load(areas.slot + v * Vec::kWidth);
    });
    return;
  }
  for (int v = 0; v < group.vectors; ++v) {
    float* last = work.score + (keys.count() - 1) * kLaneGroup + v * Vec::kWidth;
    shear_slots(slots, keys.count(), v, areas.slot, areas.shear, [last](std::int64_t i, Vec term) {
      float* at = last - i * kLaneGroup;
      store(at, load(at) + term);
    });
  }
}

// columns[d][slot] of the slots' rows, with at least a vector of zeros behind the last slot.
inline void transpose_slots(const float* table, std::int64_t width, const TileSlots& slots,
                            std::int64_t stride, float* columns) {
  for (int s = 0; s < slots.count + Vec::kWidth; s += Vec::kWidth) {
    for (std::int64_t d = 0; d < width; d += Vec::kWidth) {
      const int count = lanes_left(d, width);
      Vec square[Vec::kWidth];
      for (int i = 0; i < Vec::kWidth; ++i) {
        if (s + i >= slots.count) {
          square[i] = zero();
          continue;
        }
        const float* from = table + slots.row[s + i] * width + d;
        square[i] = count == Vec::kWidth ? load(from) : load_partial(from, count);
      }
      transpose(square);
      for (int i = 0; i < count; ++i) store(columns + (d + i) * stride + s, square[i]);
    }
  }
}

// by_slot[of[i] − first] for the lanes i of a vector.
inline Vec load_by_slot(const float* by_slot, const std::int32_t* of, int first) {
  const int begin = of[0] - first;
  const int rise = of[Vec::kWidth - 1] - of[0];
  if (rise == Vec::kWidth - 1) return load(by_slot + begin);
  if (rise == 0) return broadcast(by_slot[begin]);
  float lanes[Vec::kWidth];
  for (int i = 0; i < Vec::kWidth; ++i) lanes[i] = by_slot[of[i] - first];
  return load(lanes);
}

// scores[key][lane] += scale · log2 e · key · key_table. A few keys at a time: they meet few
// distances more than one key does.
inline void add_key_terms(const AttendBlock& block, const LaneGroup& group, KeyRange keys,
                          FloatRows key, const TileSlots& slots, const FloatWorkspace& work) {
  constexpr std::int64_t kProductStride = kLaneGroup + 2 * Vec::kWidth;
  static_assert(kTileRows <= 2 * Vec::kWidth, "keys that meet more slots than a row has room for");
  const RelativeWorkspace& areas = work.relative;
  transpose_slots(block.relative.key_table, block.head_dim, slots, areas.slot_columns, areas.table);
  const Vec factor = broadcast(block.rules.scale * kLog2E);
  for (std::int64_t j = 0; j < keys.count(); j += kTileRows) {
    const int rows = keys.count() - j < kTileRows ? static_cast<int>(keys.count() - j) : kTileRows;
    const std::int64_t last = keys.count() - 1 - j;  // t of the first key and lane 0
    const int first_slot = slots.of[last - (rows - 1)];
    const int slot_count = slots.of[last + group.vectors * Vec::kWidth - 1] + 1 - first_slot;
    RowProducts products{{key.data + j * key.stride, key.stride},
                         rows,
                         block.head_dim,
                         nullptr,
                         areas.slot_columns,
                         nullptr,
                         kProductStride,
                         false,
                         {},
                         0};
    for (int s = 0; s < slot_count; s += kLaneGroup) {
      products.column = areas.table + first_slot + s;
      products.to = areas.slot + s;
      multiply_each((slot_count - s + Vec::kWidth - 1) / Vec::kWidth, products);
    }
    for (int m = 0; m < rows; ++m) {
      for (int v = 0; v < group.vectors; ++v) {
        float* at = work.score + (j + m) * kLaneGroup + v * Vec::kWidth;
        const Vec product = load_by_slot(areas.slot + m * kProductStride,
                                         slots.of + last - m + v * Vec::kWidth, first_slot);
        store(at, fma(product, factor, load(at)));
      }
    }
  }
}

// Adds both terms to the raw scores of the tile. Not inlined, for it would be into every kernel.
__attribute__((noinline)) void add_relative_scores(const AttendBlock& block, const LaneGroup& group,
                                                   KeyRange keys, FloatRows key,
                                                   const FloatWorkspace& work) {
  const TileSlots slots = find_slots(block.relative, group, keys, work);
  if (block.relative.query_table != nullptr) add_query_terms(block, group, keys, slots, work);
  if (block.relative.key_table != nullptr) add_key_terms(block, group, keys, key, slots, work);
}

// by_slot[slot][lane] = Σ weight[key][lane] over the keys of that slot, from the last key to the
// first.
inline void weigh_slots(const TileSlots& slots, int vectors, std::int64_t count,
                        const float* weights, float* rows, float* by_slot) {
  for (int s = 0; s < slots.count; ++s) {
    for (int v = 0; v < vectors; ++v) store(by_slot + s * kLaneGroup + v * Vec::kWidth, zero());
  }
  const auto row = [rows](std::int64_t i) { return rows + (i + Vec::kWidth / 2) * Vec::kWidth; };
  for (int v = 0; v < vectors; ++v) {
    for (int i = 1; i <= Vec::kWidth / 2; ++i) store(row(-i), zero());
    for (std::int64_t i = 0; i < count; ++i) {
      store(row(i), load(weights + (count - 1 - i) * kLaneGroup + v * Vec::kWidth));
    }
    const std::int64_t end = count + Vec::kWidth - 1;
    for (std::int64_t i = count; i < end; ++i) store(row(i), zero());
    for (int bit = 0; bit < kLaneBits - 1; ++bit) {
      const int by = 1 << bit;
      const Mask moved = lanes_with_bit(bit);
      for (std::int64_t i = count + 2 * by - 2; i >= 0; --i) {
        store(row(i), select(moved, load(row(i - by)), load(row(i))));
      }
    }
    const Mask moved = lanes_with_bit(kLaneBits - 1);
    const std::int32_t* of = slots.of + v * Vec::kWidth;
    Vec sum = zero();
    for (std::int64_t i = 0; i < end; ++i) {
      sum = sum + select(moved, load(row(i - Vec::kWidth / 2)), load(row(i)));
      if (i + 1 < end && of[i + 1] == of[i]) continue;
      store(by_slot + of[i] * kLaneGroup + v * Vec::kWidth, sum);
      sum = zero();
    }
  }
}

// Which slots hold a key that structure lets a row see, as floats: exact, being small.
struct LaneSlots {
  float begin[kLaneGroup];
  float end[kLaneGroup];

  LaneSlots(const LaneGroup& group, KeyRange keys, const TileSlots& slots) : begin{}, end{} {
    for (int i = 0; i < group.row_count; ++i) {
      const KeyRange seen = seen_by(group.rows[i], keys).from(keys.begin);
      if (seen.empty()) continue;
      begin[i] = static_cast<float>(slots.of[i - (seen.end - 1) + keys.count() - 1]);
      end[i] = static_cast<float>(slots.of[i - seen.begin + keys.count() - 1] + 1);
    }
  }
  Mask visible(std::int64_t slot, int v) const {
    const Vec at = broadcast(static_cast<float>(slot));
    return less_equal(load(begin + v * Vec::kWidth), at) & less(at, load(end + v * Vec::kWidth));
  }
};

// The slots of the tile whose scores were made last, with their weights in the workspace.
__attribute__((noinline)) TileSlots weighed_slots(const LaneGroup& group, KeyRange keys,
                                                  const FloatWorkspace& work) {
  const TileSlots slots = found_slots(group, keys, work);
  weigh_slots(slots, group.vectors, keys.count(), work.score, work.relative.shear,
              work.relative.slot);
  return slots;
}

}  // namespace
}  // namespace numattn
