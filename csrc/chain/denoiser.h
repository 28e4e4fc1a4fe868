// What the chain knows of a network.
#pragma once

#include "base/watch.h"

namespace pysdk {

// Reads the chain's network_input, network_time and network_labels and fills network_output, all bound
// beforehand by pointer. Called without the GIL; throws on failure, or what the watch throws, soon after it
// does, after which the chain may be advanced again from the same row.
class Denoiser {
 public:
  virtual ~Denoiser() = default;
  virtual void enqueue(Watch& watch) = 0;
};

}  // namespace pysdk
