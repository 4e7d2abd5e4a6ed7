// Terms by distance as a kernel is given them.
#pragma once

#include "kernels.h"

#include "numattn/attention.h"

namespace numattn {

// Those of one query head; none where the score has none.
RelativeBlock relative_block(const Score& score, std::int64_t query_head);

}  // namespace numattn
