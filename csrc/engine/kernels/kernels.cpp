// Compiled once per instruction set, PYSDK_ISA being its name and namespace.
#include "engine/kernels.h"

#include "engine/kernels/attention.h"
#include "engine/kernels/direct.h"
#include "engine/kernels/group_norm.h"
#include "engine/kernels/winograd.h"

namespace pysdk::engine::PYSDK_ISA {

namespace {

void conv_pack(const ConvShape& s, const float* weight, std::size_t first_panel, std::size_t last_panel,
               float* packed, float* scratch) {
  if (s.tile == 0) return direct_pack(s, weight, first_panel, last_panel, packed);
  if (s.tile == 2) return winograd_pack<2>(s, weight, first_panel, last_panel, packed, scratch);
  winograd_pack<4>(s, weight, first_panel, last_panel, packed, scratch);
}

void conv(const ConvShape& s, const ConvData& data, std::size_t begin, std::size_t end, float* scratch,
          Lookout& lookout) {
  switch (s.tile) {
    case 0:
      return direct(s, data, begin, end, scratch, lookout);
    case 2:
      return winograd<2>(s, data, begin, end, scratch, lookout);
    default:
      return winograd<4>(s, data, begin, end, scratch, lookout);
  }
}

void silu_all(const float* x, std::size_t count, float* y) {
  for (std::size_t i = 0; i < count; i += kLanes) store(y + i, silu(load(x + i)));
}

}  // namespace

extern const Kernels kernels;
const Kernels kernels{conv_pack, conv, norm_sums, norm_apply, attention, silu_all};

}  // namespace pysdk::engine::PYSDK_ISA
