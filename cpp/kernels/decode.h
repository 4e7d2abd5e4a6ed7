// Attention of few query rows over many keys, tile by tile: where a tile's tokens lie, and what is
// fetched meanwhile.
#pragma once

#include "decode_tile.h"

namespace numattn {
namespace {

inline void begin_decode(const AttendBlock& block, const Workspace& work) {
  const std::int64_t query_stride = padded_floats(block.head_dim);
  const std::int64_t output_stride = padded_floats(block.value_dim);
  const Vec factor = broadcast(block.rules.scale * kLog2E);
  for (int r = 0; r < block.row_count; ++r) {
    float* query = work.query + r * query_stride;
    with_reader(block.query_dtype, block.query_column_stride, [&](const auto& read) {
      copy_row(block.rows[r].query, block.query_column_stride, block.head_dim, read, query);
    });
    for (std::int64_t d = 0; d < block.head_dim; d += Vec::kWidth) {
      const int count = lanes_left(d, block.head_dim);
      store_partial(query + d, load_partial(query + d, count) * factor, count);
    }
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

// Bytes to fetch of a row; 0 where its elements lie apart.
inline std::int64_t fetched_bytes(const TokenRows& tokens, std::int64_t width) {
  const std::int64_t item = dtype_size(tokens.matrix.dtype);
  return tokens.matrix.column_stride == item ? width * item : 0;
}

// Where the tokens of a tile lie: one list of addresses, of the tile's keys, its values and the
// next tile's keys, in the order in which they are read. All heads of an item share it, since their
// parts of a token lie equally far apart.
class TokenLists {
 public:
  TokenLists(const AttendBlock& first, const TileFacts& facts, const char** rows)
      : first_(first), facts_(facts), rows_(rows) {}

  KeyRange tile_from(std::int64_t key, std::int64_t end) const {
    return key < end ? first_tile({key, end}, facts_) : KeyRange{end, end};
  }

  // To be called before the first advance().
  void begin(KeyRange keys) { list_rows(first_.key, keys, rows_); }

  // From the tile before to one whose keys have been listed; `after` is the next one.
  void advance(KeyRange keys, KeyRange after) {
    for (std::int64_t j = 0; j < keys.count() && count_ > 0; ++j) rows_[j] = rows_[2 * count_ + j];
    count_ = keys.count();
    list_rows(first_.value, keys, rows_ + count_);
    // As many more as the tile has, at least: the last are repetitions.
    const char** ahead = rows_ + 2 * count_;
    list_rows(first_.key, after, ahead);
    for (std::int64_t j = after.count(); j < count_; ++j) ahead[j] = ahead[j - 1];
  }

  // The tile as a head has it, but for its scales.
  template <class Element>
  DecodeTile<Element> tile(KeyRange keys, int head) const {
    const JoinedHeads& heads = first_.heads;
    return {keys,
            {rows_, head * heads.key_head_stride},
            {rows_ + count_, head * heads.value_head_stride},
            nullptr,
            nullptr};
  }

  // Tokens [begin, end) of the tile as a head's keys, or its values. What comes `distance` tokens
  // later is fetched meanwhile.
  TilePart key_part(std::int64_t begin, std::int64_t end, std::int64_t distance, int head) const {
    return part(begin, end, begin + distance, head);
  }
  TilePart value_part(std::int64_t begin, std::int64_t end, std::int64_t distance, int head) const {
    return part(begin, end, count_ + begin + distance, head);
  }

 private:
  TilePart part(std::int64_t begin, std::int64_t end, std::int64_t fetched, int head) const {
    const JoinedHeads& heads = first_.heads;
    if (count_ <= fetched && fetched < 2 * count_) {
      return {begin, end, rows_ + fetched, head * heads.value_head_stride,
              fetched_bytes(first_.value, first_.value_dim)};
    }
    return {begin, end, rows_ + fetched, head * heads.key_head_stride,
            fetched_bytes(first_.key, first_.head_dim)};
  }

  const AttendBlock& first_;
  const TileFacts& facts_;
  const char** rows_;
  std::int64_t count_ = 0;
};

// Tokens of a turn where several heads take turns within a tile, and by how many fetching is ahead.
// Zen 3, AVX2, 8 heads of 4 rows in pages of 16 tokens, B1 from the third cache level and B8 from
// memory, against a tile of 96 keys a turn: float32 8.9 -> 11.9 and 8.8 -> 13.0 GB/s, bfloat16 8.5
// -> 9.1 and 6.6 -> 8.0. Turns of 4 tokens: 11.1, 9.4; 7.5, 6.6. Of 16: 9.0, 8.1; 8.7, 7.7.
//
// Not kept: such turns where a head is alone, 2 to 15 % slower with any distance of fetching.
constexpr std::int64_t kTurnTokens = 8;

// What a block's heads do with their tiles of keys. Tokens that lie as rows of Element are read in
// place, others (`copies`) as float32 copies.
template <class Element>
class DecodeVisit {
 public:
  DecodeVisit(const TileFacts& facts, DecodeHead* heads, int count, bool copies)
      : facts_(facts),
        heads_(heads),
        count_(count),
        copies_(copies),
        stride_(score_stride(facts)),
        lists_(*heads[0].block, facts, heads[0].work.rows) {}

  void run() {
    const AttendBlock& first = *heads_[0].block;
    const LaneGroup rows(first.rows, first.row_count, heads_[0].work.query);
    const KeyRange seen = rows.span.both(first.keys);
    KeyRange keys = lists_.tile_from(seen.begin, seen.end);
    lists_.begin(keys);
    while (!keys.empty()) {
      const KeyRange after = lists_.tile_from(keys.end, seen.end);
      lists_.advance(keys, after);
      const bool all_visible = rows.shared.holds(keys);
      if (count_ == 1 || copies_) {
        for (int head = 0; head < count_; ++head) visit_alone(head, keys, all_visible);
      } else {
        visit_in_turns(keys, all_visible);
      }
      keys = after;
    }
  }

 private:
  void weigh(int head, KeyRange keys) {
    DecodeHead& at = heads_[head];
    const bool scaled = !copies_ && at.block->key.scales != nullptr;
    if (scaled) {
      list_scales(at.block->key, keys, at.work.key_scales);
      list_scales(at.block->value, keys, at.work.value_scales);
    }
    weigh_tile(at, keys, scaled ? at.work.key_scales : nullptr,
               scaled ? at.work.value_scales : nullptr, stride_);
  }

  DecodeTile<Element> tile_of(int head, KeyRange keys) const {
    DecodeTile<Element> tile = lists_.template tile<Element>(keys, head);
    if (!copies_ && heads_[head].block->key.scales != nullptr) {
      tile.value_scales = heads_[head].work.value_scales;
    }
    return tile;
  }

  void add_values(int head, const DecodeTile<Element>& tile, const TilePart& whole,
                  bool all_visible) const {
    if (all_visible) {
      add_part(heads_[head], tile, whole, stride_);
    } else {
      add_partly_visible(heads_[head], tile, whole, stride_);
    }
  }

  // While a tile's keys are multiplied its values are fetched, and while its values are added the
  // next tile's keys.
  void visit_alone(int head, KeyRange keys, bool all_visible) {
    const std::int64_t count = keys.count();
    DecodeTile<Element> tile = tile_of(head, keys);
    const TilePart key_part = lists_.key_part(0, count, count, head);
    const TilePart value_part = lists_.value_part(0, count, count, head);
    if (copies_) copy(heads_[head].block->key, keys, heads_[head].block->head_dim, head, tile.key);
    score_part(heads_[head], tile, key_part, stride_);
    weigh(head, keys);
    if (copies_) {
      // Only now, since the copy may replace the keys in the cache.
      copy(heads_[head].block->value, keys, heads_[head].block->value_dim, head, tile.value);
    }
    add_values(head, tile, value_part, all_visible);
  }

  // Memory is read in its own order: some tokens, and of these the parts of all heads.
  void visit_in_turns(KeyRange keys, bool all_visible) {
    const std::int64_t count = keys.count();
    const std::int64_t distance = count < kTurnTokens ? count : kTurnTokens;
    for (std::int64_t j = 0; j < count; j += kTurnTokens) {
      const std::int64_t end = j + kTurnTokens < count ? j + kTurnTokens : count;
      for (int head = 0; head < count_; ++head) {
        score_part(heads_[head], tile_of(head, keys), lists_.key_part(j, end, distance, head),
                   stride_);
      }
    }
    for (int head = 0; head < count_; ++head) weigh(head, keys);
    const std::int64_t turn = all_visible ? kTurnTokens : count;
    for (std::int64_t j = 0; j < count; j += turn) {
      const std::int64_t end = j + turn < count ? j + turn : count;
      for (int head = 0; head < count_; ++head) {
        add_values(head, tile_of(head, keys), lists_.value_part(j, end, distance, head),
                   all_visible);
      }
    }
  }

  // The tile's tokens as floats.
  void copy(const TokenRows& tokens, KeyRange keys, std::int64_t width, int head,
            ListedRows<Element>& listed) {
    const DecodeWorkspace& work = heads_[head].work;
    float* to = &tokens == &heads_[head].block->key ? work.key : work.value;
    list_rows(copied(tokens, keys, width, to), {0, keys.count()}, work.copied_rows);
    listed = {work.copied_rows, 0};
  }

  const TileFacts& facts_;
  DecodeHead* heads_;
  int count_;
  bool copies_;
  std::int64_t stride_;
  TokenLists lists_;
};

template <class Element>
inline bool all_lie_in_rows(const AttendBlock& block) {
  constexpr std::int64_t kSize = sizeof(Element);
  return lies_in_rows<Element>(block.key) && lies_in_rows<Element>(block.value) &&
         block.heads.key_head_stride % kSize == 0 && block.heads.value_head_stride % kSize == 0;
}

// A block, and those of the heads that are joined to it.
inline void decode(const AttendBlock& block, const TileFacts& facts) {
  const int count = block.heads.count;
  DecodeHead heads[kMostJoinedHeads];
  for (int head = 0; head < count; ++head) {
    const AttendBlock& own = block.heads.block(block, head);
    Areas areas(own.workspace);
    heads[head].block = &own;
    heads[head].work =
        DecodeWorkspace(areas, facts, workspace_needs(own, kDecodeRows, own.value_dim));
    if (own.begin) begin_decode(own, heads[head].work);
  }
  with_element(block.key.matrix.dtype, [&](auto element) {
    using Element = decltype(element);
    if constexpr (dtype_role(element_dtype(Element{})) != Role::kFlag) {
      if (all_lie_in_rows<Element>(block)) {
        DecodeVisit<Element>(facts, heads, count, false).run();
        return;
      }
    }
    DecodeVisit<float>(facts, heads, count, true).run();
  });
  for (int head = 0; head < count; ++head) {
    if (heads[head].block->end) end_decode(*heads[head].block, heads[head].work);
  }
}

}  // namespace
}  // namespace numattn
