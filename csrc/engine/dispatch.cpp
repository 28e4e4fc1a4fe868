#include "base/isa.h"
#include "engine/kernels.h"

namespace pysdk::engine {

PYSDK_DISPATCH_KERNELS

}  // namespace pysdk::engine
