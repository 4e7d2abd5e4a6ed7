// Normalisation over the last axis.
#pragma once

#include <optional>

#include "numattn/attention.h"
#include "numattn/view.h"

namespace numattn {

enum class Norm {
  kLayer,  // (x − mean) / sqrt(variance + epsilon) · weight + bias
  kRms,    // x / sqrt(mean of x² + epsilon) · weight
};

struct NormParams {
  Norm kind = Norm::kLayer;
  View x, output;            // (rows, width); output may be x
  View weight;               // (width), contiguous float32, as is bias
  std::optional<View> bias;  // kLayer
  double epsilon = 0.0;
  int num_threads = 0;
};

// Throws before anything is written. False: interrupted.
bool run_norm(const NormParams& params, Interrupt interrupt);

}  // namespace numattn
