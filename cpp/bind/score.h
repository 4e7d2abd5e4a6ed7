// The score arguments of a call from Python: numattn._score.Score, read by name.
#pragma once

#include <optional>

#include "numattn/score.h"
#include "numpy_view.h"

namespace numattn::bind {

// Keeps alive what its params look at.
class ScoreArguments {
 public:
  explicit ScoreArguments(const py::tuple& score);

  ScoreParams params;

 private:
  py::tuple score_;
  py::array mask_, bias_;
};

// The lists of a numattn.BlockMask, or None.
std::optional<BlockLists> block_lists(const py::object& mask);

// The names of the fields, in the tuple's order.
py::tuple score_fields();

}  // namespace numattn::bind
