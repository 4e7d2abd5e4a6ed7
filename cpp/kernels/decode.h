// Attention of few query rows over many keys, tile by tile: where a tile's tokens lie, and what is
// fetched meanwhile.
#pragma once

#include "decode_tile.h"

namespace numattn {
namespace {

// What the elements of wide channels behind a key's others are to be multiplied by.
__attribute__((noinline)) void widen_query(const TokenRows& key, std::int64_t head_dim,
                                           float* query) {
  // An infinity would make NaN of a 0 there.
  constexpr float kMost = __FLT_MAX__ / kWideUnit;
  for (std::int64_t e = 0; e < key.wide_count; ++e) {
    const std::int64_t channel = key.wide_channels[e];
    float number = channel < 0 ? 0.0f : query[channel];
    number = number > kMost ? kMost : number < -kMost ? -kMost : number;
    query[head_dim + e] = kWideUnit * number;
  }
}

inline void begin_decode(const AttendBlock& block, const DecodeWorkspace& work) {
  const std::int64_t output_stride = padded_floats(block.value_dim);
  const Vec factor = broadcast(block.rules.scale * kLog2E);
  for (int r = 0; r < block.row_count; ++r) {
    float* query = work.query + r * work.query_stride;
    with_reader(block.query_dtype, block.query_column_stride, [&](const auto& read) {
      copy_row(block.rows[r].query, block.query_column_stride, block.head_dim, read, query);
    });
    for (std::int64_t d = 0; d < block.head_dim; d += Vec::kWidth) {
      const int count = lanes_left(d, block.head_dim);
      store_partial(query + d, load_partial(query + d, count) * factor, count);
    }
    widen_query(block.key, block.head_dim, query);
    for (std::int64_t d = 0; d < output_stride; d += Vec::kWidth) {
      store(work.output + r * output_stride + d, zero());
    }
    work.peak[r] = -kInfinity;
    work.sum[r] = 0.0f;
  }
}

inline void end_decode(const AttendBlock& block, const Workspace& work) {
  const std::int64_t output_stride = padded_floats(block.value_dim);
  const std::int64_t item = dtype_size(block.output_dtype);
  for (int r = 0; r < block.row_count; ++r) {
    const QueryRow& row = block.rows[r];
    const float* output = work.output + r * output_stride;
    const bool partial = block.partial != nullptr;
    const RowResult result = finish_row(work.peak[r], work.sum[r], row.sink, row.lse != nullptr);
    const float factor = partial ? 1.0f : result.factor;
    const bool seen = work.sum[r] != 0.0f;
    for (std::int64_t d = 0; d < block.value_dim; d += Vec::kWidth) {
      const int count = lanes_left(d, block.value_dim);
      const Vec values = seen ? load(output + d) * broadcast(factor) : zero();
      if (partial) {
        store_partial(block.partial->output + r * block.value_dim + d, values, count);
      } else {
        write_elements(row.output + d * item, block.output_dtype, values, count);
      }
    }
    if (partial) {
      block.partial->peak[r] = work.peak[r];
      block.partial->sum[r] = work.sum[r];
    } else if (row.lse != nullptr) {
      *row.lse = result.lse;
    }
  }
}

inline std::int64_t stored_key_width(const AttendBlock& block) {
  return block.head_dim + block.key.wide_count;
}

// Bytes to fetch of a row; 0 where its elements lie apart.
inline std::int64_t fetched_bytes(const TokenRows& tokens, std::int64_t width) {
  const std::int64_t item = dtype_size(tokens.matrix.dtype);
  return tokens.matrix.column_stride == item ? width * item : 0;
}

// The rows of the tile after one of `count` tokens: as many, of which the last are repetitions.
inline void list_ahead(const TokenRows& tokens, KeyRange after, std::int64_t count,
                       const char** rows) {
  list_rows(tokens, after, rows);
  for (std::int64_t j = after.count(); j < count; ++j) rows[j] = rows[after.count() - 1];
}

// This head's share of all heads' rows of the next tile: with c = turn · count + j, the part of
// head c % heads in row c / heads. One division a list: with one a row, a head's turn took twice
// the time that its tile is worth.
inline void list_share(TokenRows tokens, const HeadTurn& heads, std::int64_t head_stride,
                       KeyRange after, std::int64_t count, const char** rows) {
  tokens.matrix.data -= heads.turn * head_stride;
  const std::int64_t first = heads.turn * count;
  const auto within = [&](std::int64_t row) {
    return row < after.count() ? row : after.count() - 1;
  };
  const std::int64_t begin = within(first / heads.count);
  const std::int64_t end = within((first + count - 1) / heads.count) + 1;
  // Rows are listed behind the places that they go to: each is read before it is overwritten.
  const char** listed = rows + count - (end - begin);
  list_rows(tokens, {after.begin + begin, after.begin + end}, listed);
  const char* const* row = listed;
  std::int64_t head = first % heads.count;
  for (std::int64_t j = 0; j < count; ++j) {
    rows[j] = *row + head * head_stride;
    if (++head < heads.count) continue;
    head = 0;
    if (row + 1 < rows + count) ++row;
  }
}

// What decode_tile() is given, tile by tile.
class DecodeTiles {
 public:
  DecodeTiles(const AttendBlock& block, const TileFacts& facts, const DecodeWorkspace& work)
      : block_(block), facts_(facts), work_(work), key_rows_(work.key_rows) {
    next_rows_ = key_rows_ + facts.key_block;
  }

  KeyRange tile_from(std::int64_t key, std::int64_t end) const {
    return key < end ? first_tile({key, end}, facts_) : KeyRange{end, end};
  }

  // To be called before the first advance().
  void begin(KeyRange keys) { list_rows(block_.key, keys, next_rows_); }

  // The tile whose keys were listed last; `after` is the next one.
  template <class Element>
  DecodeTile<Element> advance(KeyRange keys, KeyRange after, bool copies) {
    const char** rows = key_rows_;
    key_rows_ = next_rows_;
    next_rows_ = rows;
    list_rows(block_.value, keys, work_.value_rows);
    DecodeTile<Element> tile{};
    tile.keys = keys;
    tile.key_width = copies ? block_.head_dim : stored_key_width(block_);
    tile.key.rows = copies ? work_.copied_rows : key_rows_;
    tile.value.rows = copies ? work_.copied_rows : work_.value_rows;
    if (!copies && block_.key.scales != nullptr) {
      list_scales(block_.key, keys, work_.key_scales);
      list_scales(block_.value, keys, work_.value_scales);
      tile.key_scales = work_.key_scales;
      tile.value_scales = work_.value_scales;
    }
    list_fetched(keys, after, tile);
    return tile;
  }

 private:
  template <class Element>
  void list_fetched(KeyRange keys, KeyRange after, DecodeTile<Element>& tile) {
    const HeadTurn& heads = block_.heads;
    tile.fetched_first = work_.value_rows;
    tile.fetched_second = next_rows_;
    if (heads.count == 1) {
      tile.first_bytes = fetched_bytes(block_.value, block_.value_dim);
      if (!after.empty()) {
        list_ahead(block_.key, after, keys.count(), next_rows_);
      } else {
        tile.fetched_second = key_rows_;
      }
    } else if (!after.empty()) {
      list_share(block_.key, heads, heads.key_head_stride, after, keys.count(), work_.share_rows);
      list_share(block_.value, heads, heads.value_head_stride, after, keys.count(), next_rows_);
      tile.fetched_first = work_.share_rows;
      tile.first_bytes = fetched_bytes(block_.key, stored_key_width(block_));
    }
  }

  const AttendBlock& block_;
  const TileFacts& facts_;
  const DecodeWorkspace& work_;
  const char** key_rows_;
  const char** next_rows_;
};

// Tokens that lie as rows of Element are read in place, others (`copies`) as float32 copies.
template <class Element>
inline void decode_keys(const AttendBlock& block, const TileFacts& facts,
                        const DecodeWorkspace& work, bool copies) {
  const LaneGroup rows(block.rows, block.row_count, work.query);
  const KeyRange seen = rows.span.both(block.keys);
  const std::int64_t reach = block.heads.count == 1 ? seen.end : block.heads.key_end;
  DecodeTiles tiles(block, facts, work);
  KeyRange keys = tiles.tile_from(seen.begin, seen.end);
  tiles.begin(keys);
  while (!keys.empty()) {
    const KeyRange after = tiles.tile_from(keys.end, reach);
    const DecodeTile<Element> tile = tiles.advance<Element>(keys, after, copies);
    const auto copy = [&](const TokenRows& tokens, std::int64_t width, float* to) {
      if (copies) list_rows(copied(tokens, keys, width, to), {0, keys.count()}, work.copied_rows);
    };
    copy(block.key, block.head_dim, work.key);
    decode_tile(block, tile, rows.shared.holds(keys), facts, work,
                [&] { copy(block.value, block.value_dim, work.value); });
    keys = tiles.tile_from(keys.end, seen.end);
  }
}

inline void decode(const AttendBlock& block, const TileFacts& facts) {
  Areas areas(block.workspace);
  const DecodeWorkspace work(areas, facts, block.needs);
  if (block.begin) begin_decode(block, work);
  with_element(block.key.matrix.dtype, [&](auto element) {
    using Element = decltype(element);
    if constexpr (dtype_role(element_dtype(Element{})) != Role::kFlag) {
      if (lies_in_rows<Element>(block.key) && lies_in_rows<Element>(block.value)) {
        decode_keys<Element>(block, facts, work, false);
        return;
      }
    }
    decode_keys<float>(block, facts, work, true);
  });
  if (block.end) end_decode(block, work);
}

}  // namespace
}  // namespace numattn
