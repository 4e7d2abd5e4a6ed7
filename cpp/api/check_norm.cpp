// Operands of a normalisation.
#include <cmath>

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
  check_num_threads(params.num_threads);
  check_output(params.output, params.x.shape, 2, params.x.dtype, "x");
}

}  // namespace numattn
