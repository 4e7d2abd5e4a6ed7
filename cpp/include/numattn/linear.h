// Projections with packed weights.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "numattn/attention.h"
#include "numattn/view.h"

namespace numattn {

// "float32" or "bfloat16"; std::invalid_argument for any other name.
DType parse_storage(const std::string& name);

// A weight (out_features, in_features), packed once, in one form that every instruction set reads.
class PackedLinear {
 public:
  // The bias is contiguous float32; `storage` is float32 or bfloat16. Throws std::invalid_argument
  // or std::bad_alloc.
  PackedLinear(const View& weight, const std::optional<View>& bias, DType storage,
               Precision precision);
  ~PackedLinear();
  PackedLinear(const PackedLinear&) = delete;
  PackedLinear& operator=(const PackedLinear&) = delete;

  std::int64_t in_features() const { return in_features_; }
  std::int64_t out_features() const { return out_features_; }
  bool stores_bfloat16() const;

  struct Call {
    View x;                        // (rows, in_features)
    std::string activation;        // "" is none
    std::optional<View> residual;  // (rows, out_features), the output's dtype
    // Likewise, last dimension contiguous; x's dtype, or with bfloat16 storage any.
    View output;
    int num_threads = 0;
  };
  // Throws before anything is written. False: interrupted.
  bool run(const Call& call, Interrupt interrupt) const;

 private:
  struct Storage;
  std::int64_t in_features_;
  std::int64_t out_features_;
  std::unique_ptr<Storage> storage_;
};

}  // namespace numattn
