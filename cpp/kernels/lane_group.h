// Lane groups: query rows of a block in lanes, their scores of a tile as scores[key][lane].
#pragma once

#include "areas.h"
#include "tile.h"

namespace numattn {
namespace {

// What one row sees of a tile, and whether of a key. Not inlined: they are for what is seldom.
__attribute__((noinline)) inline KeyRange seen_by(const QueryRow& row, KeyRange tile) {
  return row.seen(tile);
}
__attribute__((noinline)) inline bool is_seen_by(const QueryRow& row, std::int64_t key) {
  const ListedBlock* block = row.blocks == nullptr ? nullptr : row.block_at(key);
  return (row.seen_bits(key, block) & 1u) != 0;
}

// What rows see of a tile of keys: from the first to the last, and whether each row sees them all.
struct SeenKeys {
  KeyRange keys;
  bool all;
};

// A lane group of a block: up to kLaneGroup query rows, their queries packed in the workspace.
struct LaneGroup {
  const QueryRow* rows;
  int row_count;
  int vectors;           // registers that hold row_count lanes
  KeyRange span;         // the hull of the rows' keys
  KeyRange shared;       // what is in all of their spans,
  KeyRange shared_head;  // and in all of their heads
  bool listed;           // whether a row sees listed blocks alone
  bool one_list;         // the same ones for all rows
  bool shared_mask;      // all rows read the same mask elements
  bool shared_bias;
  const float* query;
  SeenKeys seen;  // of the tile looked at last

  LaneGroup() = default;
  LaneGroup(const QueryRow* first, int count, const float* packed)
      : rows(first),
        row_count(count),
        vectors((count + Vec::kWidth - 1) / Vec::kWidth),
        span{0, 0},
        shared(first->span),
        shared_head(first->head),
        listed(false),
        one_list(first->blocks != nullptr),
        shared_mask(true),
        shared_bias(true),
        query(packed),
        seen{} {
    for (int i = 0; i < count; ++i) {
      const QueryRow& row = rows[i];
      shared_mask &= row.mask == first->mask;
      shared_bias &= row.bias == first->bias;
      listed |= row.blocks != nullptr;
      one_list &= row.blocks == first->blocks;
      span = span.hull(row.keys());
      shared = shared.both(row.span);
      shared_head = shared_head.both(row.head);
    }
  }

  // No key that a row sees lies between `from` and this one.
  __attribute__((noinline)) std::int64_t next(std::int64_t from) const {
    std::int64_t first = INT64_MAX;
    for (int i = 0; i < row_count && first > from; ++i) {
      const std::int64_t key = rows[i].next(from);
      if (key < first) first = key;
    }
    return first;
  }

  // Whether all rows see all keys of the tile, as far as one look tells; `block` is block_at() of
  // the first row.
  bool surely_all_see(KeyRange tile, const ListedBlock* block) const {
    if (listed && !(one_list && block != nullptr && block->bits < 0)) return false;
    return shared.holds(tile) || shared_head.holds(tile);
  }

  // Calls visit(row, the listed block of it that holds `key`) for every row.
  template <class Visit>
  void each_row(std::int64_t key, const ListedBlock* block, const Visit& visit) const {
    for (int i = 0; i < row_count; ++i) {
      if (i > 0 && rows[i].blocks != rows[i - 1].blocks) block = rows[i].block_at(key);
      visit(i, block);
    }
  }
  const ListedBlock* first_block(std::int64_t key) const {
    return rows[0].blocks == nullptr ? nullptr : rows[0].block_at(key);
  }

  // Less than the span's part of the tile where no row sees what lies between the keys of two.
  __attribute__((noinline)) const SeenKeys& look(KeyRange tile) {
    const ListedBlock* first = first_block(tile.begin);
    seen = {tile, true};
    if (surely_all_see(tile, first)) return seen;
    KeyRange hull{0, 0};
    KeyRange common = tile;
    bool by_bits = false;
    each_row(tile.begin, first, [&](int i, const ListedBlock* block) {
      const KeyRange keys = rows[i].seen(tile, block);
      hull = hull.hull(keys);
      common = common.both(keys);
      by_bits |= block != nullptr && block->bits >= 0;
    });
    seen = {hull, !by_bits && common.holds(hull)};
    return seen;
  }
};

// The lane groups of a block, and the keys that any of them sees in this visit.
struct LaneGroups {
  LaneGroup groups[kMostLaneGroups];
  int count = 0;
  KeyRange span{0, 0};
  SeenKeys seen{};

  // The queries of the group whose first row is `first` lie at query + first · row_floats.
  LaneGroups(const AttendBlock& block, const float* query, std::int64_t row_floats) {
    for (int first = 0; first < block.row_count; first += kLaneGroup) {
      LaneGroup& group = groups[count++];
      group =
          LaneGroup(block.rows + first, rows_of_group(block, first), query + first * row_floats);
      group.span = group.span.both(block.keys);
      span = span.hull(group.span);
    }
  }

  static int rows_of_group(const AttendBlock& block, int first) {
    return block.row_count - first < kLaneGroup ? block.row_count - first : kLaneGroup;
  }

  std::int64_t next(std::int64_t from) const {
    std::int64_t first = INT64_MAX;
    for (int g = 0; g < count && first > from; ++g) {
      const std::int64_t key = groups[g].next(from);
      if (key < first) first = key;
    }
    return first;
  }

  const SeenKeys& look(KeyRange tile) {
    seen = {{0, 0}, true};
    for (int g = 0; g < count; ++g) {
      const SeenKeys& own = groups[g].look(tile);
      seen.keys = seen.keys.hull(own.keys);
      seen.all &= own.all;
    }
    return seen;
  }

  // visit(group, keys, first row) for every group that sees keys of the tile looked at, with those
  // that it sees.
  template <class Visit>
  void each_that_sees(const Visit& visit) const {
    for (int g = 0; g < count; ++g) {
      const KeyRange keys = groups[g].seen.keys;
      if (!keys.empty()) visit(groups[g], keys, static_cast<std::int64_t>(g) * kLaneGroup);
    }
  }
};

// The tile of `keys` that begins with them. Tiles end where the grid says, wherever a block's keys
// begin: a row's sums are then the same whichever rows stand beside it.
inline KeyRange first_tile(KeyRange keys, const TileGrid& grid) {
  std::int64_t end = (keys.begin / grid.step + 1) * grid.step;
  if (keys.begin < grid.head && grid.head < end) end = grid.head;
  return {keys.begin, end < keys.end ? end : keys.end};
}

// The first tile of `left` that any row sees, as far as one does; `left` becomes what lies behind
// it. Empty where there is none. Rows are a LaneGroup or LaneGroups.
template <class Rows>
inline KeyRange next_tile(Rows& rows, const TileGrid& grid, KeyRange& left) {
  for (;;) {
    left.begin = rows.next(left.begin);
    if (left.empty()) return {left.end, left.end};
    const KeyRange tile = first_tile(left, grid);
    left.begin = tile.end;
    const SeenKeys& seen = rows.look(tile);
    if (!seen.keys.empty()) return seen.keys;
  }
}

// Calls change(key, vector, score) on every vector of the tile and stores what it returns.
template <class Change>
inline void change_scores(const LaneGroup& group, std::int64_t key_count, float* scores,
                          const Change& change) {
  for (std::int64_t j = 0; j < key_count; ++j) {
    for (int v = 0; v < group.vectors; ++v) {
      float* at = scores + j * kLaneGroup + v * Vec::kWidth;
      store(at, change(j, v, load(at)));
    }
  }
}

// Which keys of a tile the rows see: by the ends of intervals relative to the tile, as floats,
// exact where they matter, since a tile is short; or bit by bit, where blocks are listed and a tile
// is part of one.
class LaneSpans {
 public:
  LaneSpans(const LaneGroup& group, KeyRange keys) : by_bits_(group.listed) {
    if (by_bits_) {
      take_bits(group, keys);
      return;
    }
    for (int i = 0; i < kLaneGroup; ++i) begin_[i] = end_[i] = 0.0f;
    for (int i = 0; i < group.row_count; ++i) {
      const KeyRange seen = group.rows[i].seen(keys, nullptr).from(keys.begin);
      begin_[i] = static_cast<float>(seen.begin);
      end_[i] = static_cast<float>(seen.end);
    }
  }
  Mask visible(std::int64_t j, int v) const {
    if (by_bits_) return mask_from_bits(bits_[v * kMaskBlock + j]);
    const Vec key = broadcast(static_cast<float>(j));
    return less_equal(load(begin_ + v * Vec::kWidth), key) &
           less(key, load(end_ + v * Vec::kWidth));
  }

 private:
  __attribute__((noinline)) void take_bits(const LaneGroup& group, KeyRange keys) {
    std::uint64_t words[kLaneGroup] = {};
    group.each_row(keys.begin, group.first_block(keys.begin), [&](int i, const ListedBlock* block) {
      words[i] = group.rows[i].seen_bits(keys.begin, block);
    });
    for (int v = 0; v < group.vectors; ++v) {
      std::uint64_t rows[Vec::kWidth];
      for (int i = 0; i < Vec::kWidth; ++i) rows[i] = words[v * Vec::kWidth + i];
      transpose_bits(rows, bits_ + v * kMaskBlock);
    }
  }

  const bool by_bits_;
  float begin_[kLaneGroup];
  float end_[kLaneGroup];
  MaskBits bits_[kTileVectors * kMaskBlock];
};

}  // namespace
}  // namespace numattn
