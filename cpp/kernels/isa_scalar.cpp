// Kernels for the portable table: baseline x86-64-v2 here, plain C++ elsewhere.
#include "vec/scalar.h"

#include "table.h"

namespace numattn {

const Kernels& kernels_scalar() noexcept {
  static constexpr Kernels table = make_kernels("scalar");
  return table;
}

}  // namespace numattn
