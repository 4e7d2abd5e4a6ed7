// Blocked attention with an online softmax, query rows in lanes, over whatever multiplies its
// tiles.
//
// Definition, for one query row with logits s over the keys it sees:
//
//   peak = max s,   p = exp(s − peak),   o = Σ p·v / Σ p,   lse = peak + log Σ p
//
// The keys are visited in tiles. With m, l, O the state before a tile and m' = max(m, tile's peak):
//
//   α = exp(m − m'),   l' = α·l + Σ p,   O' = α·O + Σ p·v,   p = exp(s − m')
//
// Tiles whose weights are all small may be left out (left_out.h).
//
// Of many keys, the state is folded into a total, chunk by chunk (fold.h).
//
// What multiplies is a class of this form (float_tiles.h, pair_tiles.h):
//
//   struct Tiles {
//     struct Tile;                    // keys and values as it multiplies them, for all groups
//     kShiftSlack, kWeightStep        // softmax.h
//     Tiles(block, facts)             // its areas of the block's workspace
//     work()                          // their common part
//     row_floats()                    // of a packed query
//     pack(first, rows)               // queries of the lane group whose first row is `first`
//     prepare(keys, end)              // → Tile; `end`: where the keys of the visit end
//     multiplied(keys)                // keys that its products take along: their weights must be 0
//     scores<V>(group, tile, keys)    // s[key][lane] of multiplied(keys)
//     in_base2(score), settle(v, shift, key_count), weigh(j, v, shift)   // softmax.h
//     add<V>(group, tile, keys, old, output)   // O' = α·O + Σ p·v
//   };
#pragma once

#include "fold.h"
#include "left_out.h"

namespace numattn {
namespace {

template <int Vectors, class Tiles>
inline void attend_tile(const AttendBlock& block, Tiles& tiles, const LaneGroup& group,
                        const typename Tiles::Tile& tile, KeyRange keys, std::int64_t first) {
  const Workspace& work = tiles.work();
  const KeyRange multiplied = tiles.multiplied(keys);
  const auto scores_of = [&](std::int64_t key) {
    return work.score + (key - multiplied.begin) * kLaneGroup;
  };
  const ScoredTile scored = score_tile(block, group, keys, work, scores_of(keys.begin),
                                       [&] { tiles.template scores<Vectors>(group, tile, keys); });
  if (scored.excluded) return;
  Vec peaks[Vectors];
  for (int v = 0; v < Vectors; ++v) peaks[v] = broadcast(-kInfinity);
  find_peaks(scored, keys.count(), scores_of(keys.begin), peaks);
  if (block.rules.skip_level < 0.0f) {
    Vec in_base2[Vectors];
    for (int v = 0; v < Vectors; ++v) in_base2[v] = tiles.in_base2(peaks[v]);
    if (is_left_out(group, keys.count(), scores_of(keys.begin), in_base2, work.peak + first,
                    block.rules.skip_level)) {
      return;
    }
  }
  const auto hide = [&](KeyRange padding) {
    change_scores(group, padding.count(), scores_of(padding.begin),
                  [](std::int64_t, int, Vec) { return broadcast(-kInfinity); });
  };
  hide({multiplied.begin, keys.begin});
  hide({keys.end, multiplied.end});
  const Rescaling<Vectors> old =
      update_softmax(tiles, multiplied.count(), peaks, work.peak + first, work.sum + first);
  tiles.add(group, tile, keys, old, output_of(block, work, first));
}

template <class Tiles>
inline void attend(const AttendBlock& block, const TileFacts& facts) {
  Tiles tiles(block, facts);
  if (block.begin) {
    begin_state(block, tiles.work());
    if (block.needs.folds) begin_total(block, tiles.work());
    for (int first = 0; first < block.row_count; first += kLaneGroup) {
      tiles.pack(first, LaneGroups::rows_of_group(block, first));
    }
  }
  LaneGroups in(block, tiles.work().query, tiles.row_floats());
  KeyRange left = in.span;
  for (;;) {
    const KeyRange here = next_tile(in, block.grid, left);
    if (here.empty()) break;
    if (block.needs.folds) enter_chunk(block, tiles.work(), here.begin / facts.fold_keys);
    const auto tile = tiles.prepare(here, in.span.end);
    in.each_that_sees([&](const LaneGroup& group, KeyRange keys, std::int64_t first) {
      with_count<kTileVectors>(group.vectors, [&](auto vectors) {
        attend_tile<decltype(vectors)::value>(block, tiles, group, tile, keys, first);
      });
    });
  }
  if (!block.end) return;
  if (block.needs.folds) end_total(block, tiles.work());
  write_block(block, tiles.work());
}

}  // namespace
}  // namespace numattn
