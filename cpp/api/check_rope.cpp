// What a rotary embedding is given: shapes, types and positions.
#include "check.h"
#include "layout.h"

namespace numattn {
namespace {

std::int64_t last_length(const View& view) {
  return view.shape[static_cast<std::size_t>(view.rank - 1)];
}

bool same_shape(const View& a, const View& b) {
  if (a.rank != b.rank) return false;
  for (int axis = 0; axis < a.rank; ++axis) {
    const auto at = static_cast<std::size_t>(axis);
    if (a.shape[at] != b.shape[at]) return false;
  }
  return true;
}

void check_x(const RopeParams& params) {
  if (params.x.rank != 3 && params.x.rank != 4) {
    refuse(
        "x must have 3 or 4 dimensions ",
        params.layout == Layout::kBhsd ? "(B, H, S, D) or (H, S, D)" : "(B, S, H, D) or (S, H, D)",
        ", not shape ", shape_text(params.x));
  }
  check_floating(params.x, "x");
  check_bytes(params.x, "x");
  if (last_length(params.x) < 1) {
    refuse("x must have at least one element in its last dimension, not shape ",
           shape_text(params.x));
  }
}

// x in (batch, head, position, element) order.
void check_tables(const RopeParams& params, const View& x) {
  const View& cos = params.cos;
  check_floating(cos, "cos");
  check_floating(params.sin, "sin");
  if (!same_shape(cos, params.sin)) {
    refuse("cos and sin must have one shape, not ", shape_text(cos), " and ",
           shape_text(params.sin));
  }
  if (params.positions) {
    check_rank(cos, "cos", 2, "(P, R) where positions choose its rows");
  } else {
    const bool shared = cos.rank == 2 && cos.shape[0] == x.shape[2];
    const bool batched = cos.rank == 3 && cos.shape[0] == x.shape[0] && cos.shape[1] == x.shape[2];
    if (!shared && !batched) {
      refuse("cos and sin must have shape (S, R) or (B, S, R) with B = ", number(x.shape[0]),
             " and S = ", number(x.shape[2]), ", not ", shape_text(cos),
             ": rows of longer tables are chosen by positions");
    }
  }
  const std::int64_t pairs = last_length(cos);
  if (pairs > x.shape[3] / 2) {
    refuse("cos and sin of shape ", shape_text(cos), " turn ", number(pairs),
           " pairs of elements, but the last dimension of x is ", number(x.shape[3]));
  }
}

void check_positions(const RopeParams& params, const View& x) {
  const PositionArray& positions = *params.positions;
  const bool shared = positions.rank == 1 && positions.shape[0] == x.shape[2];
  const bool batched =
      positions.rank == 2 && positions.shape[0] == x.shape[0] && positions.shape[1] == x.shape[2];
  if (!shared && !batched) {
    View got;
    got.rank = positions.rank;
    got.shape = {positions.shape[0], positions.shape[1], 0, 0};
    refuse("positions must have shape (S,) or (B, S) with B = ", number(x.shape[0]),
           " and S = ", number(x.shape[2]), ", not ", shape_text(got));
  }
  const std::int64_t count = positions.shape[0] * (batched ? positions.shape[1] : 1);
  const std::int64_t rows = params.cos.shape[0];
  for (std::int64_t i = 0; i < count; ++i) {
    if (positions.data[i] >= 0 && positions.data[i] < rows) continue;
    refuse("position ", number(positions.data[i]), " is not in the tables cos and sin, which have ",
           number(rows), " rows");
  }
}

}  // namespace

void check_rope(const RopeParams& params) {
  check_x(params);
  const View x = in_bhsd(params.x, params.layout);
  check_tables(params, x);
  if (params.positions) check_positions(params, x);
  check_num_threads(params.num_threads);
  check_output(params.output, params.x.shape, params.x.rank, params.x.dtype, "x");
}

}  // namespace numattn
