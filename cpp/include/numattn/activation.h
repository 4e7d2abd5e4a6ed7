// An activation by itself.
#pragma once

#include <string>

#include "numattn/attention.h"
#include "numattn/view.h"

namespace numattn {

struct ActivationParams {
  View x, output;          // (n); the output may be x
  std::string activation;  // as a projection's
  int num_threads = 0;
};

// Throws before anything is written. False: interrupted.
bool run_activation(const ActivationParams& params, Interrupt interrupt);

}  // namespace numattn
