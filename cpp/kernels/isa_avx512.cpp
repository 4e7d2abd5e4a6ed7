// Kernels for AVX-512 F, BW, DQ, VL.
#include "vec/avx512.h"

#include "table.h"

namespace numattn {

const Kernels& kernels_avx512() noexcept {
  static constexpr Kernels table = make_kernels("avx512");
  return table;
}

}  // namespace numattn
