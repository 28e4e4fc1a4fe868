// Bits are promised within one version; see docs/architecture.md. Whoever changes a sum, a polynomial or
// their order raises it, says why in CHANGELOG.md and adds the new hashes in tests/numerics.
#pragma once

namespace pysdk {

constexpr int kNumericsVersion = 1;

}  // namespace pysdk
