// What terms by distance are given: shapes of tables and biases, rows by distance.
#pragma once

#include "numattn/attention.h"

namespace numattn {

// The problem's shapes must stand. Nothing to do where it has no such terms.
void check_relative(const AttentionProblem& problem);

}  // namespace numattn
