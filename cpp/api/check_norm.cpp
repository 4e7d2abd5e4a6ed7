// Operands of a normalisation.
#include <cmath>
#include <limits>

#include "check.h"

namespace numattn {

void check_norm(const NormParams& params) {
  check_floating(params.x, "x");
  const std::int64_t width = params.x.shape[1];
  if (width < 1) refuse("x must have at least one element in its last dimension");
  const auto check_vector = [width](const View& vector, const char* name) {
    if (vector.rank == 1 && vector.shape[0] == width) return;
    refuse(name, " must have shape (", number(width), ",) like x's last dimension, not ",
           shape_text(vector));
  };
  check_vector(params.weight, "weight");
  if (params.bias) check_vector(*params.bias, "bias");
  if (!(params.epsilon >= 0.0) || !std::isfinite(params.epsilon)) {
    refuse("eps must be finite and not negative, not ", real_text(params.epsilon));
  }
  constexpr double kSmallest = std::numeric_limits<float>::min();
  constexpr double kLargest = std::numeric_limits<float>::max();
  if (params.epsilon != 0.0 && (params.epsilon < kSmallest || params.epsilon > kLargest)) {
    refuse("eps must be 0 or from 1.2e-38 to 3.4e38, which float32 holds, not ",
           real_text(params.epsilon));
  }
  check_num_threads(params.num_threads);
  check_output(params.output, params.x.shape, 2, params.x.dtype, "x");
}

}  // namespace numattn
