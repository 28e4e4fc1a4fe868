// The reverse chain on a device: the whole of it in one launch where the driver and the networks allow, else
// a launch per row, else plain calls. No CUDA header here: see device.h.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/busy.h"
#include "chain/request.h"
#include "cuda/device.h"
#include "cuda/row_graph.h"
#include "cuda/rows/blocks.h"

namespace pysdk::cuda {

// How rows get to the device, best first.
enum class Path { kWhile, kStep, kPlain };

constexpr std::size_t kMaxGraphs = 8;  // kept per chain

// The sizes of a chain's task.
Task task_of(const ChainShape& shape);

class CudaChain {
 public:
  using Poll = std::function<void()>;

  CudaChain(std::shared_ptr<Device> device, const ChainShape& shape);
  ~CudaChain();

  const ChainShape& shape() const { return shape_; }
  Device& device() const { return *device_; }
  const std::shared_ptr<Device>& share_device() const { return device_; }
  std::int64_t length() const { return length_; }
  std::int64_t position() const { return mailbox_.get()->position; }
  Path path() const { return path_; }
  const std::string& why() const { return why_; }  // the path is not the best one; empty if it is
  std::size_t bytes() const;                       // of device memory
  Stream stream() const { return stream_.get(); }

  // Tensors as in ChainBuffers, on the device.
  const std::shared_ptr<Block>& input() const { return input_; }
  const std::shared_ptr<Block>& time() const { return time_; }
  const std::shared_ptr<Block>& labels() const { return labels_; }
  const std::shared_ptr<Block>& output() const { return output_; }
  const std::shared_ptr<Block>& x() const { return x_; }
  const std::shared_ptr<Block>& d1() const { return d1_; }

  // As those of CpuChain. Drops all graphs.
  void attach(DeviceNetworks networks);
  void forget_noise() { request_.noise = nullptr; }
  // Snapshots are kept of every `every` rows and the last, in a ring of `slots`; 0 for none. A path other
  // than kWhile is the best one that may be taken; with `forced`, kStep and kWhile are taken or it is an
  // error.
  struct Way {
    Path path = Path::kWhile;
    bool forced = false;
  };
  void begin(Request request, Way way, std::int32_t every, std::int32_t slots);

  // Enqueues up to `count` rows. Returns at once on the path kWhile; on the others, when all are enqueued.
  // `poll` is called now and then; when it throws, rows not yet run are not run.
  void launch(std::int64_t count, const Poll& poll);
  // Waits until `row` rows are done, or all that were launched, or the time is over; returns the rows done.
  std::int64_t wait(std::int64_t row, double seconds, const Poll& poll);
  // launch, then wait; returns the rows done.
  std::int64_t advance(std::int64_t count, const Poll& poll);

  // x, or D, after `row` rows, into host memory; `row` is done and was among the last `slots` snapshots.
  void read_snapshot(std::int64_t row, bool denoised, float* to);
  // The first `images` of x or D to image `first` and on of another block.
  void copy(const Block& from, std::size_t images, Block& to, std::size_t first);
  // Images as bytes (N, H, W, C) into `to` from number `first` on, unless it is null; returns the first image
  // that holds NaN or infinity, or -1.
  std::int64_t bytes_of(std::size_t images, double low, double high, Block* to, std::size_t first);

 private:
  struct Cached {
    std::uint32_t key;
    std::unique_ptr<OwnedGraph> graph;
  };

  Wiring wiring() const;
  std::uint32_t kinds() const;
  std::uint32_t calls(std::int64_t row) const;
  void upload_request();
  void warm_up(std::uint32_t calls);
  template <typename Make>
  OwnedGraph& cached(std::uint32_t key, Make&& make);
  OwnedGraph& whole_chain_graph();
  OwnedGraph& row_graph(std::uint32_t calls);
  void choose_path();
  void run_rows(std::int64_t until, const Poll& poll);
  void feed_noise(std::int64_t row);
  void set_until(std::int64_t until);
  void stop_now();

  const ChainShape shape_;
  const std::shared_ptr<Device> device_;
  OwnedStream stream_, side_;  // side_: snapshots, while the chain runs on
  OwnedMailbox mailbox_;
  std::shared_ptr<Block> input_, time_, labels_, output_, x_, d1_;
  std::shared_ptr<Block> state_, arrays_, initial_, known_, keep_, noise_, known_noise_, d2_, y_, raw_,
      threshold_, ring_, broken_;
  DeviceNetworks networks_;
  Request request_;
  std::vector<float> host_noise_;
  Task task_{};
  Way way_;
  Path path_ = Path::kWhile;
  std::string why_;
  std::array<std::string, 2> refused_;  // why a path, kWhile or kStep, cannot be taken
  std::list<Cached> graphs_;            // the last used first
  std::uint32_t warmed_ = 0;            // networks that have run since they were attached,
  std::thread::id warmed_by_;           // in this thread: libraries keep handles and plans for each
  std::int64_t length_ = 0, launched_ = 0;
  std::int64_t until_ = -1;  // of Place, on the device; -1 if unknown
  std::atomic<bool> busy_{false};
};

}  // namespace pysdk::cuda
