// The operators, each a kernel and the list of what it takes.
#pragma once

#include <cstddef>
#include <memory>

#include "kernel.h"

namespace numattn::onnxruntime {

// kElement: the type that an operator is registered for; kAny: a mask's, seen when it runs.
enum class Type { kElement, kInt32, kInt64, kAny };

struct Slot {
  Type type;
  Characteristic characteristic;
};

struct Operator {
  const char* name;
  const Slot* inputs;
  std::size_t input_count;
  const Slot* outputs;
  std::size_t output_count;
  std::unique_ptr<Kernel> (*make)(const Info& info);
};

extern const Operator kAttention;
extern const Operator kMultiHeadAttention;
extern const Operator kGroupQueryAttention;

template <std::size_t Inputs, std::size_t Outputs>
constexpr Operator operator_of(const char* name, const Slot (&inputs)[Inputs],
                               const Slot (&outputs)[Outputs],
                               std::unique_ptr<Kernel> (*make)(const Info& info)) {
  return {name, inputs, Inputs, outputs, Outputs, make};
}

// Most outputs are a result that a node must name, and three that it may.
constexpr Slot kResults[] = {{Type::kElement, kRequired},
                             {Type::kElement, kOptional},
                             {Type::kElement, kOptional},
                             {Type::kElement, kOptional}};

}  // namespace numattn::onnxruntime
