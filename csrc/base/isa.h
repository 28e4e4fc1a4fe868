// Chooses among builds of the same kernels for several instruction sets. All give the same bits; only the
// speed differs.
#pragma once

#include <array>
#include <cstddef>

// Best first. Each is the name of a CPU's instruction set and of the namespace that holds the kernels built
// for it.
#if defined(PYSDK_X86_KERNELS)
#define PYSDK_ISAS(X) X(avx512) X(avx2) X(baseline)
#else
#define PYSDK_ISAS(X) X(baseline)
#endif

namespace pysdk {

// The name in PYSDK_ISAS, and its place there, of the set in use: the first that this CPU runs, or the one
// that the environment variable PYSDK_ISA names. Chosen once; std::runtime_error if the variable names none
// that is here.
const char* isa_name();
std::size_t isa_place();

}  // namespace pysdk

// Defines `const Kernels& kernels()`, which returns the kernels for the set in use, in a namespace that has a
// struct Kernels and, for each set, a constant `kernels`.
#define PYSDK_DECLARE_KERNELS(isa) \
  namespace isa {                  \
  extern const Kernels kernels;    \
  }
#define PYSDK_POINT_TO_KERNELS(isa) &isa::kernels,
#define PYSDK_DISPATCH_KERNELS                                                                      \
  PYSDK_ISAS(PYSDK_DECLARE_KERNELS)                                                                 \
  const Kernels& kernels() {                                                                        \
    static const Kernels& chosen = *std::array{PYSDK_ISAS(PYSDK_POINT_TO_KERNELS)}.at(isa_place()); \
    return chosen;                                                                                  \
  }
