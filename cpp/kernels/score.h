// Scores of one lane group against one tile of keys, and what they go through to become logits:
//
//   s₂[key][lane] = log2 e · (softcap(scale · q·k) + bias + alibi),   −inf where hidden
//
// Query rows lie in lanes: every step is vertical, and keys are read where they lie. The factor
// scale · log2 e is folded into the queries, so the softmax runs in base 2 throughout.
#pragma once

#include "score_steps.h"

namespace numattn {
namespace {

// A square of float32 that lie side by side, from element `first` of each row on: from register to
// register. Zen 4, 8 × 12 heads of 128 × 64, with write_squares() 75 and 81 GFLOP/s.
__attribute__((noinline)) inline void pack_square(const QueryRow* rows, std::int64_t first,
                                                  Vec factor, float* packed) {
  Vec square[Vec::kWidth];
#pragma GCC unroll 16
  for (int i = 0; i < Vec::kWidth; ++i) {
    square[i] = load(reinterpret_cast<const float*>(rows[i].query) + first);
  }
  transpose(square);
#pragma GCC unroll 16
  for (int j = 0; j < Vec::kWidth; ++j) store(packed + j * kLaneGroup, square[j] * factor);
}

// query[d][lane] = scale · log2 e · q[lane][d]; lanes without a row are 0.
template <class Read>
inline void pack_queries(const AttendBlock& block, const QueryRow* rows, int row_count,
                         const Read& read, float* packed) {
  const Vec factor = broadcast(block.rules.scale * kLog2E);
  const std::int64_t item = block.query_column_stride;
  const bool side_by_side = block.query_dtype == DType::kFloat32 && item == 4;
  for (int lane = 0; lane < kLaneGroup; lane += Vec::kWidth) {
    if (lane >= row_count) break;
    // Of the square after the next: one is turned in less time than memory takes to answer.
    // Float32, 8 × 12 heads of 128 × 64 on Zen 3: with the next one's 60.0, so 63.5 GFLOP/s
    // (results.h too).
    for (const QueryRow* row = rows + lane + 2 * Vec::kWidth;
         row < rows + lane + 3 * Vec::kWidth && row < block.rows + block.row_count; ++row) {
      fetch_bytes(row->query, block.head_dim * item);
    }
    for (std::int64_t d = 0; d < block.head_dim; d += Vec::kWidth) {
      const int columns = lanes_left(d, block.head_dim);
      if (side_by_side && columns == Vec::kWidth && lane + Vec::kWidth <= row_count) {
        pack_square(rows + lane, d, factor, packed + d * kLaneGroup + lane);
        continue;
      }
      Vec square[Vec::kWidth];
      for (int i = 0; i < Vec::kWidth; ++i) {
        square[i] = lane + i < row_count ? read(rows[lane + i].query + d * item, columns) : zero();
      }
      transpose(square);
      for (int j = 0; j < columns; ++j)
        store(packed + (d + j) * kLaneGroup + lane, square[j] * factor);
    }
  }
}

// Not inlined, like other steps that are long and run once for a block or a tile.
__attribute__((noinline)) inline void pack_queries(const AttendBlock& block, const QueryRow* rows,
                                                   int row_count, float* packed) {
  with_reader(block.query_dtype, block.query_column_stride,
              [&](const auto& read) { pack_queries(block, rows, row_count, read, packed); });
}

__attribute__((noinline)) inline void apply_spans(const LaneGroup& group, KeyRange keys,
                                                  float* scores) {
  const LaneSpans spans(group, keys);
  const Vec excluded = broadcast(-kInfinity);
  change_scores(group, keys.count(), scores, [&](std::int64_t j, int v, Vec score) {
    return select(spans.visible(j, v), score, excluded);
  });
}

// What score_tile() left to do.
struct ScoredTile {
  bool excluded;         // a mask or bias excludes all of it, and no score was written
  const MaskBits* mask;  // still to be applied; null for none
  std::int64_t mask_stride;
};

// Base-2 logits of the tile into `scores`, from what multiply() writes there; nothing of the keys
// is read where all of them are excluded. The mask is left to the pass that looks for the peaks.
template <class Multiply>
inline ScoredTile score_tile(const AttendBlock& block, const LaneGroup& group, KeyRange keys,
                             const Workspace& work, float* scores, const Multiply& multiply) {
  const ScoreRules& rules = block.rules;
  Excluded mask = Excluded::kNone;
  if (group.rows[0].mask != nullptr) {
    mask = gather_mask(group, keys, rules.mask_key_stride, work.mask_stride, work.mask);
    if (mask == Excluded::kAll) return {true, nullptr, 0};
  }
  if (group.rows[0].bias != nullptr && !gather_bias(group, keys, rules, work.bias)) {
    return {true, nullptr, 0};
  }
  multiply();
  Transforms::apply(rules, LaneRows{group, keys, work.bias}, scores);
  if (!group.seen.all) apply_spans(group, keys, scores);
  return {false, mask == Excluded::kSome ? work.mask : nullptr, work.mask_stride};
}

// peak[v] = the largest of the tile's scores, after the mask has been applied to them.
//
// In variables of its own: the compiler must take it that scores might be stored over `peak`, and a
// maximum that passes through memory takes 10 cycles instead of 2.
template <int Vectors>
inline void find_peaks(const ScoredTile& tile, std::int64_t key_count, float* scores,
                       Vec (&peak)[Vectors]) {
  Vec top[Vectors];
  for (int v = 0; v < Vectors; ++v) top[v] = peak[v];
  const auto see = [&](const auto& score_at) {
    for (std::int64_t j = 0; j < key_count; ++j) {
#pragma GCC unroll 3
      for (int v = 0; v < Vectors; ++v) {
        top[v] = max(score_at(scores + j * kLaneGroup + v * Vec::kWidth, j, v), top[v]);
      }
    }
  };
  if (tile.mask == nullptr) {
    see([](const float* at, std::int64_t, int) { return load(at); });
  } else {
    const Vec excluded = broadcast(-kInfinity);
    see([excluded, tile](float* at, std::int64_t j, int v) {
      const Mask allowed = mask_from_bits(tile.mask[v * tile.mask_stride + j]);
      const Vec score = select(allowed, load(at), excluded);
      store(at, score);
      return score;
    });
  }
  for (int v = 0; v < Vectors; ++v) peak[v] = top[v];
}

// The same without the peaks.
inline void apply_mask(const LaneGroup& group, std::int64_t key_count, const ScoredTile& tile,
                       float* scores) {
  const Vec excluded = broadcast(-kInfinity);
  change_scores(group, key_count, scores, [=](std::int64_t j, int v, Vec score) {
    return select(mask_from_bits(tile.mask[v * tile.mask_stride + j]), score, excluded);
  });
}

}  // namespace
}  // namespace numattn
