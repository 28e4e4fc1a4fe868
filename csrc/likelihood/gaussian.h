// Normal distributions in float64: the terms of the variational bound, in nats.
#pragma once

#include <cmath>

namespace pysdk {

// log Phi(x). Below -30, where erfc nears underflow, its asymptotic series (error below 1e-12).
inline double log_normal_cdf(double x) {
  constexpr double kLogRootTwoPi = 0.91893853320467274178;
  constexpr double kRootHalf = 0.70710678118654752440;
  if (x > -30.0)
    return x > 5.0 ? std::log1p(-0.5 * std::erfc(x * kRootHalf)) : std::log(0.5 * std::erfc(-x * kRootHalf));
  const double s = 1.0 / (x * x);
  return -0.5 * x * x - std::log(-x) - kLogRootTwoPi +
         std::log1p(-s * (1.0 - s * (3.0 - s * (15.0 - s * 105.0))));
}

// log(Phi(high) - Phi(low)), low < high, without cancellation in either tail.
inline double log_normal_interval(double low, double high) {
  constexpr double kRootHalf = 0.70710678118654752440;
  if (low <= 0.0 && high >= 0.0) {
    return std::log(0.5 * (std::erf(high * kRootHalf) + std::erf(-low * kRootHalf)));
  }
  const double near = low > 0.0 ? -low : high;  // both mirrored to the left tail
  const double far = low > 0.0 ? -high : low;
  const double largest = log_normal_cdf(near);
  return largest + std::log1p(-std::exp(log_normal_cdf(far) - largest));
}

// -log of the mass of N(mean, sigma^2) in the bin of half width `half` around x; the bins of the smallest and
// the largest level are open (DDPM, eq. 13).
inline double discretised_nll(double x, double mean, double inverse_sigma, double half, bool smallest,
                              bool largest) {
  const double low = (x - half - mean) * inverse_sigma;
  const double high = (x + half - mean) * inverse_sigma;
  if (smallest) return -log_normal_cdf(high);
  if (largest) return -log_normal_cdf(-low);
  return -log_normal_interval(low, high);
}

// KL(N(m_1, exp(log_variance_1)) || N(m_2, exp(log_variance_2))) from (m_1 - m_2)^2.
inline double normal_kl(double squared_distance, double log_variance_1, double log_variance_2) {
  const double difference = log_variance_1 - log_variance_2;
  return 0.5 * (std::expm1(difference) - difference + squared_distance * std::exp(-log_variance_2));
}

}  // namespace pysdk
