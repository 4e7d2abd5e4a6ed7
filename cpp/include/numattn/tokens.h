// Keys or values of a call, as they are stored.
#pragma once

#include <cstdint>
#include <optional>

#include "numattn/view.h"

namespace numattn {

struct StoredTokens {
  View data;
  std::optional<View> scale;  // of integers: one number for each token and head
  // Where tokens lie in pages, the views of a checked call are those of page 0, and pages lie so
  // many bytes apart.
  std::int64_t page_stride = 0, scale_page_stride = 0;
};

}  // namespace numattn
