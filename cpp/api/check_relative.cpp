// What terms by distance are given: shapes of tables and biases, rows by distance.
#include <algorithm>

#include "check.h"

namespace numattn {
namespace {

// Kernels limit positions to twice this: differences then fit 64 bits.
constexpr std::int64_t kFarthestDistance = std::int64_t{1} << 60;

// (1 or query_heads, [rows,] width); rank and width follow from what the array is.
void check_array(const FloatArray& array, const char* name, int rank, const char* axes,
                 std::int64_t width, const AttentionProblem& problem) {
  if (array.data == nullptr) return;
  const std::int64_t heads = array.shape[0];
  if (array.rank == rank && (heads == 1 || heads == problem.query_heads) &&
      array.shape[static_cast<std::size_t>(rank - 1)] == width) {
    return;
  }
  refuse("relative.", name, " must have shape ", axes, " with Hq = ", number(problem.query_heads),
         ", D = ", number(problem.head_dim), ", Dv = ", number(problem.value_dim), ", not ",
         shape_text(array));
}

void check_rows(const RelativeTerms& terms) {
  const IntArray& rows = terms.distance_rows;
  if (rows.size < 1) refuse("relative.distance_rows must name a row for at least one distance");
  const auto [least, most] = std::minmax_element(rows.data, rows.data + rows.size);
  const auto check_table = [&, lowest = *least, highest = *most](const FloatArray& table,
                                                                 const char* name) {
    if (table.data == nullptr || (lowest >= 0 && highest < table.shape[1])) return;
    refuse("relative.distance_rows names row ", number(lowest < 0 ? lowest : highest),
           ", which is not in relative.", name, " of shape ", shape_text(table));
  };
  check_table(terms.query_table, "query_table");
  check_table(terms.key_table, "key_table");
  check_table(terms.value_table, "value_table");
  if (rows.size > kFarthestDistance || terms.first_distance < -kFarthestDistance ||
      terms.first_distance > kFarthestDistance - rows.size) {
    refuse("relative.first_distance must lie within 2^60 of 0, not be ",
           number(terms.first_distance));
  }
}

}  // namespace

void check_relative(const RelativeTerms& terms, const AttentionProblem& problem) {
  const char* table = "(Hq or 1, T, D)";
  check_array(terms.query_table, "query_table", 3, table, problem.head_dim, problem);
  check_array(terms.key_table, "key_table", 3, table, problem.head_dim, problem);
  check_array(terms.value_table, "value_table", 3, "(Hq or 1, T, Dv)", problem.value_dim, problem);
  check_array(terms.content_bias, "content_bias", 2, "(Hq or 1, D)", problem.head_dim, problem);
  check_array(terms.position_bias, "position_bias", 2, "(Hq or 1, D)", problem.head_dim, problem);
  check_rows(terms);
}

}  // namespace numattn
