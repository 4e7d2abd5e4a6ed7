// New tokens for the rows of a layer of a cache, and the memory of such layers.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "numattn/attention.h"
#include "numattn/small_array.h"
#include "numattn/tokens.h"

namespace numattn {

// As a cache holds them and a caller gives them; data == nullptr is "not given". New values of rank
// 0 are none: those of the cache are part of its keys.
struct AppendParams {
  // Keys and values (B, Hkv, slots, width), scales without the last axis; with a table, pools of
  // pages (P, page, Hkv, width).
  StoredTokens k, v;
  StoredTokens new_k, new_v;  // (B, Hkv, S, width), or in layout
  Layout layout = Layout::kBhsd;
  IntArray lengths;  // (B): how many tokens each row has
  IntArray first;    // (B): how many of these have no slot any more; none: 0
  IntArray counts;   // (B): how many of the S tokens are real; none: all
  PageTable table;
};

// One array of tokens and where it is stored, in canonical order: (row, head, position, element).
struct AppendedArray {
  View held;
  std::int64_t page_stride;
  View tokens;
};

// Checked.
struct Append {
  std::vector<AppendedArray> arrays;
  std::vector<std::int64_t> starts;  // (B): the slot of each row's first new token
  std::vector<std::int64_t> ends;    // (B): and of the first one behind its last
  PageTable table;
  std::int64_t page_rows = 0;

  std::int64_t last_end() const;
};

// std::invalid_argument for counts beyond the tokens, and slots or pages that there are not.
Append check_append(const AppendParams& params);

// Copies the tokens into their slots.
void append_tokens(const Append& append);

// Memory that stays and is streamed, in huge pages where the system has them; on a cache line, and
// where it would fill a huge page, on such. Throws std::bad_alloc.
std::shared_ptr<char> streamed_memory(std::int64_t bytes);

}  // namespace numattn
