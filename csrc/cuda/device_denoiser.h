// What the device chain knows of a network.
#pragma once

namespace pysdk {

// Enqueues one run of the network in a CUDA stream: it reads network_input, network_time and network_labels
// and fills network_output, all in device memory and bound beforehand by
// address.
//
// It is called at least once before it is captured, so that what it sets up lazily is there. While the stream
// is being captured it may only enqueue: no allocation outside a graph's pool, no synchronisation, no other
// stream unless forked from and joined to this one. It throws CaptureRefused where it cannot be captured, and
// anything else on a failure. A TensorRT context fits as it is: its execute_async_v3(stream), whose false
// result is a failure.
class DeviceDenoiser {
 public:
  virtual ~DeviceDenoiser() = default;
  virtual void enqueue(void* stream) = 0;
  // The same while the stream is being captured.
  virtual void capture(void* stream) { enqueue(stream); }
};

}  // namespace pysdk
