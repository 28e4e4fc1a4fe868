#include "base/isa.h"
#include "chain/kernels.h"

namespace pysdk {

PYSDK_DISPATCH_KERNELS

}  // namespace pysdk
