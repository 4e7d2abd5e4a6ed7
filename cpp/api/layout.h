// The same array with its axes in canonical order: (batch, head, position, element).
#pragma once

#include "numattn/attention.h"
#include "numattn/view.h"

namespace numattn {

// A view of rank 3 is one batch entry.
View in_bhsd(const View& view, Layout layout);

// With a last axis of length 1.
View with_unit_axis(const View& view);

// Scales get the axis that the tokens' elements have, so that they can be read like them.
StoredTokens in_bhsd(const StoredTokens& tokens, Layout layout);

// A pool of pages (pages, rows, heads, width) as one batch entry of so many tokens, which are
// those of page 0.
StoredTokens pages_in_bhsd(const StoredTokens& pool, std::int64_t tokens);

}  // namespace numattn
