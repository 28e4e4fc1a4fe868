#include "base/isa.h"
#include "chain/kernels.h"

namespace pysdk {

#if defined(PYSDK_X86_KERNELS)
namespace avx512 {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
#endif
namespace baseline {
extern const Kernels kernels;
}

const Kernels& kernels() {
#if defined(PYSDK_X86_KERNELS)
  static const Kernels& chosen = choose_kernels({&avx512::kernels, &avx2::kernels, &baseline::kernels});
#else
  static const Kernels& chosen = choose_kernels({&baseline::kernels});
#endif
  return chosen;
}

}  // namespace pysdk
