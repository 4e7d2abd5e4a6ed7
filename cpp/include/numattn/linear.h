// Projections with packed weights.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "numattn/attention.h"
#include "numattn/view.h"

namespace numattn {

// How a packed weight is stored. kW8A8: as kInt8, and rows of x become integers of 8 bits, too.
enum class Storage : std::uint8_t { kFloat32, kBFloat16, kInt8, kW8A8 };

// "float32", "bfloat16", "int8" or "w8a8"; std::invalid_argument for any other name.
Storage parse_storage(const std::string& name);

// Changes with the meaning of a state, so that none is misread.
constexpr int kLinearStateVersion = 1;

// What a layer is made of, as it lies in memory: the same at every instruction set.
struct LinearState {
  int version = 0;  // of what is said here
  // A storage's name, "split": float32 as two bfloat16, or "groups8" or "groups4":
  // integers of so many bits with a scale for every 16 or 32 of a row
  std::string format;
  std::int64_t out_features = 0;
  std::int64_t in_features = 0;
  View panels;               // (panels, elements of one), contiguous; of integers bytes
  std::optional<View> bias;  // (out_features,), contiguous float32
};

// A weight (out_features, in_features), packed once, in one form that every instruction set reads.
// It never changes.
class PackedLinear {
 public:
  // The bias is contiguous float32. Throws std::invalid_argument or std::bad_alloc.
  PackedLinear(const View& weight, const std::optional<View>& bias, Storage storage,
               Precision precision);
  // A layer from the state of another one, which is copied. Throws std::invalid_argument or
  // std::bad_alloc.
  explicit PackedLinear(const LinearState& state);

  // The layer that gives the output features [begin, end) alone, from the same memory. It begins
  // with a whole panel: before them may come some features more. Throws std::invalid_argument.
  PackedLinear part(std::int64_t begin, std::int64_t end) const;
  // Views of the layer's memory.
  LinearState state() const;

  std::int64_t in_features() const { return in_features_; }
  std::int64_t out_features() const { return out_features_; }
  bool stores_float32() const;

  struct Call {
    View x;                      // (rows, in_features)
    std::string activation;      // "" is none
    std::optional<View> factor;  // (rows, out_features), the output's dtype
    // Or of what this layer of as many features makes of x, rounded to the output's dtype.
    const PackedLinear* factor_layer = nullptr;
    std::optional<View> residual;  // like `factor`
    // (rows, out_features), last dimension contiguous; x's dtype, or any where weights are not
    // float32.
    View output;
    int num_threads = 0;
  };
  // Throws before anything is written. False: interrupted.
  bool run(const Call& call, Interrupt interrupt) const;

 private:
  struct Memory;
  class Run;
  std::int64_t in_features_;
  std::int64_t out_features_;
  std::int64_t first_panel_ = 0;
  std::shared_ptr<const Memory> memory_;  // of this layer and its parts
};

}  // namespace numattn
