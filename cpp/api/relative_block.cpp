#include "relative_block.h"

namespace numattn {
namespace {

// The head's part of an array (1 or query_heads, ..., width); null without one.
const float* of_head(const FloatArray& array, std::int64_t head) {
  if (array.data == nullptr || array.shape[0] == 1) return array.data;
  return array.data + head * array.shape[1] * (array.rank == 3 ? array.shape[2] : 1);
}

}  // namespace

RelativeBlock relative_block(const Score& score, std::int64_t query_head) {
  if (!score.relative) return {};
  const RelativeTerms& terms = *score.relative;
  return {terms.distance_rows.data,
          terms.distance_rows.size,
          terms.first_distance,
          of_head(terms.query_table, query_head),
          of_head(terms.key_table, query_head),
          of_head(terms.value_table, query_head),
          of_head(terms.content_bias, query_head),
          of_head(terms.position_bias, query_head)};
}

}  // namespace numattn
