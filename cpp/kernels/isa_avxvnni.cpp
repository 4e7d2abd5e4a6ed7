// Kernels for AVX2 with AVX-VNNI: those of AVX2, and products of integers by its instructions.
#include "vec/avxvnni.h"

#include "integer_table.h"

namespace numattn {

const Kernels& kernels_avx2() noexcept;

const Kernels& kernels_avxvnni() noexcept {
  static const Kernels table = with_integers<kernels_avx2>("avxvnni");
  return table;
}

}  // namespace numattn
