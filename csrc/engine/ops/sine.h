// Sine and cosine in double without the C library, whose last bits differ from machine to machine.
#pragma once

#include <cmath>

namespace pysdk::engine {

// sin(x), or cos(x); error below 1e-13 for |x| < 1e6, NaN beyond 1e9 where too few digits are left.
inline double sine(double x, bool cosine) {
  if (!(std::fabs(x) < 1e9)) return std::nan("");
  // x = n pi/2 + r, pi/2 in three parts; the first two have 33 bits, so their products with n are exact
  const double n = std::nearbyint(x * 0.63661977236758134308);
  double r = x - n * 1.57079632673412561417e+00;
  r -= n * 6.07710050630396597660e-11;
  r -= n * 2.02226624879595063154e-21;
  const double z = r * r;
  // Taylor series on [-pi/4, pi/4]
  double s = 1.0 / 355687428096000.0, c = 1.0 / 20922789888000.0;
  constexpr double kSine[] = {-1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0, 1.0 / 362880.0,
                              -1.0 / 5040.0,          1.0 / 120.0,        -1.0 / 6.0,        1.0};
  constexpr double kCosine[] = {-1.0 / 87178291200.0,
                                1.0 / 479001600.0,
                                -1.0 / 3628800.0,
                                1.0 / 40320.0,
                                -1.0 / 720.0,
                                1.0 / 24.0,
                                -0.5,
                                1.0};
  for (const double a : kSine) s = s * z + a;
  for (const double a : kCosine) c = c * z + a;
  s *= r;
  const auto quadrant = (static_cast<long long>(n) + (cosine ? 1 : 0)) & 3;
  const double value = quadrant % 2 == 0 ? s : c;
  return quadrant < 2 ? value : -value;
}

}  // namespace pysdk::engine
