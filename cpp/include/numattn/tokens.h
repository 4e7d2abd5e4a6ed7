// Keys or values of a call, as they are stored.
#pragma once

#include <cstdint>
#include <optional>

#include "numattn/small_array.h"
#include "numattn/view.h"

namespace numattn {

// Channels of integers that have 16 bits, of each head `count`, or −1 for none. The token's last
// `count` elements are what they hold beyond their own element, in units of 256.
struct WideChannels {
  IntArray channels;  // (heads, count)
  std::int64_t heads = 0, count = 0;
};

// The pages of a pool that rows have: token j of row b is in page pages[b · columns + j / page].
struct PageTable {
  const std::int64_t* pages = nullptr;
  std::int64_t rows = 0, columns = 0;
};

struct StoredTokens {
  View data;
  std::optional<View> scale;  // of integers: one number for each token and head
  // Where tokens lie in pages, the views of a checked call are those of page 0, and pages lie so
  // many bytes apart.
  std::int64_t page_stride = 0, scale_page_stride = 0;
  WideChannels wide;
};

}  // namespace numattn
