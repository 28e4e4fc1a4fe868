// e^x and SiLU by polynomial: libraries differ between machines in the last bit.
#pragma once

#include "engine/kernels/simd.h"

namespace pysdk::engine::PYSDK_ISA {

// Relative error 2e-7. Below -87.3 the least normal number, above 88.3 infinity. NaN stays NaN.
inline Floats exp(Floats x) {
  x = max(all(-87.3f), min(all(89.0f), x));          // with a NaN both return their second argument
  const Floats n = round(mul(x, all(1.44269504f)));  // 1 / log 2
  x = fnma(n, all(0.693359375f), x);                 // log 2 in two parts, the first exact in few bits
  x = fnma(n, all(-2.12194440e-4f), x);
  Floats p = all(1.9875691500e-4f);  // (e^x - 1 - x) / x^2 on [-log(2)/2, log(2)/2]
  p = fma(p, x, all(1.3981999507e-3f));
  p = fma(p, x, all(8.3334519073e-3f));
  p = fma(p, x, all(4.1665795894e-2f));
  p = fma(p, x, all(1.6666665459e-1f));
  p = fma(p, x, all(5.0000001201e-1f));
  p = fma(p, mul(x, x), add(x, all(1.0f)));
  return mul(p, exp2_whole(n));
}

inline Floats silu(Floats x) { return div(x, add(all(1.0f), exp(sub(zero(), x)))); }

}  // namespace pysdk::engine::PYSDK_ISA
