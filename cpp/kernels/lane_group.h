// Lane groups: query rows of a block in lanes, their scores of a tile as scores[key][lane].
#pragma once

#include "areas.h"
#include "tile.h"

namespace numattn {
namespace {

// A lane group of a block: up to kLaneGroup query rows, their queries packed in the workspace.
struct LaneGroup {
  const QueryRow* rows;
  int row_count;
  int vectors;       // registers that hold row_count lanes
  KeyRange span;     // the hull of the rows' spans
  KeyRange shared;   // what is in all of them
  bool shared_mask;  // all rows read the same mask elements
  bool shared_bias;
  const float* query;

  LaneGroup() = default;
  LaneGroup(const QueryRow* first, int count, const float* packed)
      : rows(first),
        row_count(count),
        vectors((count + Vec::kWidth - 1) / Vec::kWidth),
        span{0, 0},
        shared(first->span),
        shared_mask(true),
        shared_bias(true),
        query(packed) {
    for (int i = 0; i < count; ++i) {
      const QueryRow& row = rows[i];
      shared_mask &= row.mask == first->mask;
      shared_bias &= row.bias == first->bias;
      span = span.hull(row.span);
      shared = shared.both(row.span);
    }
  }

  // The hull of the keys that rows see of a tile. Less than the span's part of it where no row sees
  // what lies between the spans of two.
  KeyRange seen(KeyRange tile) const {
    if (shared.holds(tile)) return tile;
    KeyRange keys{0, 0};
    for (int i = 0; i < row_count; ++i) keys = keys.hull(rows[i].span.both(tile));
    return keys;
  }
};

// The lane groups of a block, and the keys that any of them sees in this visit.
struct LaneGroups {
  LaneGroup groups[kMostLaneGroups];
  int count = 0;
  KeyRange span{0, 0};

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

  KeyRange seen(KeyRange tile) const {
    KeyRange keys{0, 0};
    for (int g = 0; g < count; ++g) keys = keys.hull(groups[g].seen(tile));
    return keys;
  }

  // visit(group, keys, first row) for every group that sees keys of the tile, with those that it
  // sees.
  template <class Visit>
  void each_that_sees(KeyRange tile, const Visit& visit) const {
    for (int g = 0; g < count; ++g) {
      const KeyRange keys = groups[g].seen(tile);
      if (!keys.empty()) visit(groups[g], keys, static_cast<std::int64_t>(g) * kLaneGroup);
    }
  }
};

// The tile of `keys` that begins with them. Tiles end at multiples of the key block, wherever a
// block's keys begin: a row's sums are then the same whichever rows stand beside it.
inline KeyRange first_tile(KeyRange keys, const TileFacts& facts) {
  const std::int64_t next = (keys.begin / facts.key_block + 1) * facts.key_block;
  return {keys.begin, next < keys.end ? next : keys.end};
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

// The rows' spans relative to a tile, as floats: exact where they matter, since a tile is short.
struct LaneSpans {
  float begin[kLaneGroup];
  float end[kLaneGroup];

  LaneSpans(const LaneGroup& group, KeyRange keys) : begin{}, end{} {
    for (int i = 0; i < group.row_count; ++i) {
      const KeyRange seen = group.rows[i].span.both(keys).from(keys.begin);
      begin[i] = static_cast<float>(seen.begin);
      end[i] = static_cast<float>(seen.end);
    }
  }
  Mask visible(std::int64_t j, int v) const {
    const Vec key = broadcast(static_cast<float>(j));
    return less_equal(load(begin + v * Vec::kWidth), key) & less(key, load(end + v * Vec::kWidth));
  }
};

}  // namespace
}  // namespace numattn
