// Kernels for AVX-512 F, BW, DQ, VL.
#ifndef NUMATTN_VEC  // which lanes; tests have some in software
#define NUMATTN_VEC "vec/avx512.h"
#endif
#include NUMATTN_VEC

#include "table.h"

namespace numattn {

const Kernels& kernels_avx512() noexcept {
  static constexpr Kernels table = make_kernels("avx512");
  return table;
}

}  // namespace numattn
