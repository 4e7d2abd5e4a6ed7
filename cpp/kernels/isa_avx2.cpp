// Kernels for AVX2 with FMA and F16C.
#include "vec/avx2.h"

#include "table.h"

namespace numattn {

const Kernels& kernels_avx2() noexcept {
  static constexpr Kernels table = make_kernels("avx2");
  return table;
}

}  // namespace numattn
