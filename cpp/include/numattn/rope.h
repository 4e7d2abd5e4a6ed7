// Rotary position embedding: pairs of elements of a head, turned by the angle of their position.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "numattn/attention.h"
#include "numattn/view.h"

namespace numattn {

// Contiguous rows of tables: (S) alike for all batch entries, or (B, S).
struct PositionArray {
  const std::int64_t* data = nullptr;
  int rank = 0;
  std::array<std::int64_t, 2> shape{};
};

// For 0 <= r < R and (a, b) = (r, r + R), or (2r, 2r + 1) where interleaved:
//   out[a] = x[a] · cos[r] − x[b] · sin[r],   out[b] = x[b] · cos[r] + x[a] · sin[r],
// and out[i] = x[i] for i >= 2R.
struct RopeParams {
  View x;         // (B, H, S, D) or (H, S, D), or as the layout says
  View cos, sin;  // (S, R) or (B, S, R); with positions (P, R), and these choose rows
  std::optional<PositionArray> positions;
  bool interleaved = false;
  Layout layout = Layout::kBhsd;
  View output;  // x's shape and dtype, last dimension contiguous; may be x itself
  int num_threads = 0;
};

// Throws before anything is written. False: interrupted.
bool run_rope(const RopeParams& params, Interrupt interrupt);

}  // namespace numattn
