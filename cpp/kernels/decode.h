// Attention of few query rows over many keys, tile by tile: where a tile's tokens lie, and what is
// fetched meanwhile.
#pragma once

#include "decode_steps.h"

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

// `kept` is how queries are kept: as float32, and then with all of the scores' factor, or else with
// what of it they take without rounding.
inline void begin_decode(const AttendBlock& block, DType kept, const DecodeWorkspace& work) {
  const std::int64_t output_stride = padded_floats(block.value_dim);
  const float all = block.rules.scale * kLog2E;
  const bool takes_all = kept == DType::kFloat32;
  const Vec factor = broadcast(takes_all ? all : ScoreFactor(block.rules).of_queries);
  for (int r = 0; r < block.row_count; ++r) {
    float* query = work.query + r * work.query_stride;
    with_reader(block.query_dtype, block.query_column_stride, [&](const auto& read) {
      copy_row(block.rows[r].query, block.query_column_stride, block.head_dim, read, query);
    });
    for (std::int64_t d = 0; d < block.head_dim; d += Vec::kWidth) {
      const int count = lanes_left(d, block.head_dim);
      const Vec numbers = load_partial(query + d, count) * factor;
      if (takes_all) {
        store_partial(query + d, numbers, count);
      } else {  // no number is overwritten before it is read
        write_elements(reinterpret_cast<char*>(query) + d * dtype_size(kept), kept, numbers, count);
      }
    }
    widen_query(block.key, block.head_dim, query);
    for (std::int64_t d = 0; d < output_stride; d += Vec::kWidth) {
      store(work.output + r * output_stride + d, zero());
      store(work.value_sums + r * output_stride + d, zero());
    }
    if (!block.keeps_peaks) work.peak[r] = -kInfinity;
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
      const Vec values = seen ? scaled(load(output + d), broadcast(factor)) : zero();
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

// Where the tokens of a tile lie: one list of addresses, of the tile's keys, its values and the
// next tile's keys, in the order in which they are read. All heads of an item share it, since their
// parts of a token lie equally far apart.
class TokenLists {
 public:
  TokenLists(const AttendBlock& first, const char** rows) : first_(first), rows_(rows) {}

  // To be called before the first advance().
  void begin(KeyRange keys) { list_rows(first_.key, keys, rows_); }

  // From the tile before to one whose keys have been listed; `after` is the next one.
  __attribute__((noinline)) void advance(KeyRange keys, KeyRange after) {
    for (std::int64_t j = 0; j < keys.count() && count_ > 0; ++j) rows_[j] = rows_[2 * count_ + j];
    count_ = keys.count();
    list_rows(first_.value, keys, rows_ + count_);
    // As many more as the tile has, at least: the last are repetitions.
    const char** ahead = rows_ + 2 * count_;
    list_rows(first_.key, after, ahead);
    for (std::int64_t j = after.count(); j < count_; ++j) ahead[j] = ahead[j - 1];
  }

  // The tile as a head has it, but for its scales.
  TileRows tile(KeyRange keys, int head) const {
    const JoinedHeads& heads = first_.heads;
    return {keys,           stored_key_width(first_),       rows_,  head * heads.key_head_stride,
            rows_ + count_, head * heads.value_head_stride, nullptr};
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
            fetched_bytes(first_.key, stored_key_width(first_))};
  }

  const AttendBlock& first_;
  const char** rows_;
  std::int64_t count_ = 0;
};

// Tokens of a turn where several heads take turns within a tile, and by how many fetching is ahead.
// GB/s of 8 heads in pages of 16 tokens:
//
//                            a turn of   4      8      16     32     a tile (96)
//   Zen 3, AVX2, 4 rows, float32        9.4   13.0     8.1            8.8
//                        bfloat16       6.6    8.0     7.7            6.6
//   Zen 4, AVX-512, 4 rows, float32    17.6   19.5    21.2   20.3
//                           bfloat16   12.7   14.4    16.0   17.0
//                   1 row,  bfloat16   11.3   23.1    19.7   19.1
//
// Not kept: such turns where a head is alone, 2 to 15 % slower with any distance of fetching (Zen
// 3); there, fetching 8 to 64 tokens ahead instead of a tile: by rows and dtype 8 % faster to half
// as fast on Zen 4, and half as fast without any; in a stand, the next tile's keys in turns with a
// tile's values, as fast.
constexpr std::int64_t turn_tokens(int rows) { return Vec::kWidth == 16 && rows >= 3 ? 16 : 8; }

// What a head does with its tiles of keys, or several that see the same ones. Tokens that lie as
// rows of their elements are read in place, others (`copies`) as copies, by one head at a time.
class DecodeVisit {
 public:
  DecodeVisit(const TileFacts& facts, const ElementSteps& steps, DecodeHead* heads, int count,
              bool copies)
      : steps_(steps),
        heads_(heads),
        count_(count),
        copies_(copies),
        stride_(score_stride(facts)),
        lists_(*heads[0].block, heads[0].work.rows) {}

  void run() {
    const AttendBlock& first = *heads_[0].block;
    LaneGroup rows(first.rows, first.row_count, heads_[0].work.query);
    KeyRange left = rows.span.both(first.keys);
    KeyRange keys = next_tile(rows, first.grid, left);
    lists_.begin(keys);
    while (!keys.empty()) {
      const bool all_visible = rows.seen.all;
      const KeyRange after = next_tile(rows, first.grid, left);
      lists_.advance(keys, after);
      if (count_ == 1) {
        visit_alone(keys, all_visible);
      } else {
        visit_in_turns(keys, all_visible);
      }
      keys = after;
    }
  }

 private:
  // Whether tokens are read as integers.
  bool scaled() const { return !copies_ && heads_[0].block->key.scales != nullptr; }

  TileRows tile_of(int head, KeyRange keys) const {
    TileRows tile = lists_.tile(keys, head);
    if (scaled()) tile.value_scales = heads_[head].work.value_scales;
    return tile;
  }

  void add_values(int head, const TileRows& tile, const TilePart& part, bool all_visible) const {
    if (heads_[head].left_out) return;
    if (!all_visible && steps_.add_where_visible(heads_[head], tile, stride_)) return;
    steps_.add_part(heads_[head], tile, part, stride_);
  }

  // While a tile's keys are multiplied its values are fetched, and while its values are added the
  // next tile's keys. After a tile that was left out these are fetched at once: the next one's
  // values may not be wanted either.
  void visit_alone(KeyRange keys, bool all_visible) {
    const std::int64_t count = keys.count();
    const AttendBlock& block = *heads_[0].block;
    TileRows tile = tile_of(0, keys);
    if (copies_) {
      tile.key_width = block.head_dim;
      tile.key_rows = copied_rows(block.key, keys, block.head_dim, heads_[0].work.key);
    }
    const std::int64_t distance = heads_[0].left_out ? 2 * count : count;
    steps_.score_part(heads_[0], tile, lists_.key_part(0, count, distance, 0), stride_);
    weigh_tile(heads_[0], keys, scaled(), stride_);
    if (heads_[0].left_out) return;
    // Only now, since the copy may replace the keys in the cache.
    if (copies_) {
      tile.value_rows = copied_rows(block.value, keys, block.value_dim, heads_[0].work.value);
    }
    add_values(0, tile, lists_.value_part(0, count, count, 0), all_visible);
  }

  // Memory is read in its own order: some tokens, and of these the parts of all heads.
  void visit_in_turns(KeyRange keys, bool all_visible) {
    const std::int64_t count = keys.count();
    const std::int64_t usual = turn_tokens(heads_[0].block->row_count);
    const std::int64_t distance = count < usual ? count : usual;
    for (std::int64_t j = 0; j < count; j += usual) {
      const std::int64_t end = j + usual < count ? j + usual : count;
      for (int head = 0; head < count_; ++head) {
        steps_.score_part(heads_[head], tile_of(head, keys),
                          lists_.key_part(j, end, distance, head), stride_);
      }
    }
    for (int head = 0; head < count_; ++head) weigh_tile(heads_[head], keys, scaled(), stride_);
    const std::int64_t turn = all_visible ? usual : count;
    for (std::int64_t j = 0; j < count; j += turn) {
      const std::int64_t end = j + turn < count ? j + turn : count;
      for (int head = 0; head < count_; ++head) {
        add_values(head, tile_of(head, keys), lists_.value_part(j, end, distance, head),
                   all_visible);
      }
    }
  }

  // The tile's tokens copied to `to`: as floats, or as they are where queries are kept so.
  const char* const* copied_rows(const TokenRows& tokens, KeyRange keys, std::int64_t width,
                                 float* to) const {
    const char** rows = heads_[0].work.copied_rows;
    const TokenRows copy = steps_.query == DType::kFloat32 ? copied(tokens, keys, width, to)
                                                           : gathered(tokens, keys, width, to);
    list_rows(copy, {0, keys.count()}, rows);
    return rows;
  }

  const ElementSteps& steps_;
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

// Whether all heads see the same keys, by their outermost and innermost ends and by their lists.
inline bool see_alike(const DecodeHead* heads, int count) {
  const auto same = [](KeyRange a, KeyRange b) { return a.begin == b.begin && a.end == b.end; };
  const auto seen_by = [](const DecodeHead& head) {
    return LaneGroup(head.block->rows, head.block->row_count, head.work.query);
  };
  const LaneGroup first = seen_by(heads[0]);
  for (int head = 1; head < count; ++head) {
    const LaneGroup other = seen_by(heads[head]);
    if (!same(first.span, other.span) || !same(first.shared, other.shared) ||
        !same(first.shared_head, other.shared_head)) {
      return false;
    }
    for (int r = 0; r < first.row_count; ++r) {
      if (first.rows[r].blocks != other.rows[r].blocks) return false;
    }
  }
  return true;
}

inline void visit_heads(const TileFacts& facts, const ElementSteps& steps, DecodeHead* heads,
                        int count, bool copies) {
  if (!copies && see_alike(heads, count)) {
    DecodeVisit(facts, steps, heads, count, false).run();
    return;
  }
  for (int head = 0; head < count; ++head) {
    DecodeVisit(facts, steps, heads + head, 1, copies).run();
  }
}

// How a block's tokens are read.
struct Reading {
  ElementSteps steps;
  bool copies;
};

template <template <class> class KeysOf>
inline Reading reading_of(const AttendBlock& block) {
  Reading reading{element_steps<KeysOf<float>, float>(), true};
  with_element(block.key.matrix.dtype, [&](auto element) {
    using Element = decltype(element);
    if constexpr (dtype_role(element_dtype(Element{})) != Role::kFlag) {
      using Keys = KeysOf<Element>;
      const bool in_rows = all_lie_in_rows<Element>(block);
      if (!in_rows && std::is_same_v<typename Keys::Query, float>) return;
      reading = {element_steps<Keys, Element>(), !in_rows};
    }
  });
  return reading;
}

// A block, and those of the heads that are joined to it. KeysOf<Element> is how keys meet queries.
template <template <class> class KeysOf>
inline void decode(const AttendBlock& block, const TileFacts& facts) {
  const Reading reading = reading_of<KeysOf>(block);
  const int count = block.heads.count;
  DecodeHead heads[kMostJoinedHeads];
  for (int head = 0; head < count; ++head) {
    const AttendBlock& own = block.heads.block(block, head);
    Areas areas(own.workspace);
    heads[head].block = &own;
    heads[head].work = DecodeWorkspace(areas, facts, own.needs);
    if (own.begin) begin_decode(own, reading.steps.query, heads[head].work);
  }
  visit_heads(facts, reading.steps, heads, count, reading.copies);
  for (int head = 0; head < count; ++head) {
    if (heads[head].block->end) end_decode(*heads[head].block, heads[head].work);
  }
}

}  // namespace
}  // namespace numattn
