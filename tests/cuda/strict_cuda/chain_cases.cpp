// Chains on the real CudaDevice, over the strict runtime, against the same on the simulated device.
#include <atomic>
#include <thread>

#include "cases.h"

using namespace pysdk::cuda;
using strict::Schedule;

namespace {

void compare(unsigned bits, unsigned seed) {
  const Features features = features_of(bits, seed);
  for (const Path path : kPaths) {
    if (features.foreign && path == Path::kWhile) continue;
    const Results wanted = expected(features, path, seed);
    for (const Schedule schedule : {Schedule::kLate, Schedule::kEager, Schedule::kRandom}) {
      strict::runtime().machine.schedule = schedule;
      strict::runtime().machine.stages_pageable = seed % 2 == 0;
      const Results got = run_chain(open_device(0), features, path, seed);
      require(got == wanted, "features " + std::to_string(bits) + ", path " + name_of(path) + ", schedule " +
                                 std::to_string(static_cast<int>(schedule)) + ": other bits");
      require_nothing_left();
    }
  }
}

std::vector<std::string> only(const std::vector<std::string>& log, const std::string& prefix) {
  std::vector<std::string> result;
  for (const std::string& line : log) {
    if (line.rfind(prefix, 0) == 0) result.push_back(line.substr(prefix.size()));
  }
  return result;
}

using Lines = std::vector<std::string>;

}  // namespace

CASE(each_feature_has_the_same_bits) {
  compare(0, 1);
  for (unsigned bit = 0; bit < kFeatureBits; ++bit) compare(bit == 1 ? 3u : 1u << bit, bit);
}

CASE(features_together_have_the_same_bits) {
  for (unsigned seed = 0; seed < 12; ++seed) compare(seed * 2654435761u >> 11, seed);
  compare((1u << kFeatureBits) - 1, 99);
}

CASE(kernels_of_several_blocks_have_the_same_bits) {
  Features features = everything();
  features.batch = 3, features.channels = 3, features.height = features.width = 17, features.rows = 3;
  for (const Path path : kPaths) {
    require(run_chain(open_device(0), features, path, 8) == expected(features, path, 8), "other bits");
  }
}

CASE(nodes_run_in_order) {
  Features features = everything();
  features.rows = 3;
  Made made = make_chain(open_device(0), features);
  pysdk::Request request = request_of(features, 1);
  pysdk::StepTable table = *request.table;
  for (pysdk::Row& row : table.rows) row.skip = row.unguided = 0.0f;
  table.rows[1].unguided = 1.0f;
  pysdk::Row& last = table.rows[2];
  last.skip = 1.0f, last.p = last.q = last.b = last.h = 0.0f;
  request.table = pysdk::checked_table(std::move(table));
  made.chain->begin(request, {Path::kWhile, true}, 0, 0);
  strict::taken_log();
  made.chain->advance(3, nothing);
  const auto log = strict::taken_log();
  require(only(log, "> ") == Lines{"while", "prepare", "if", "network", "if", "network", "threshold",
                                   "update", "advance_loop"},
          "the graph has other nodes");
  Lines ran = only(log, "run ");
  ran.erase(ran.begin(), ran.begin() + 2);  // each network was warmed up
  require(
      ran == Lines{"prepare", "network", "threshold", "update", "advance_loop", "prepare", "network",
                   "threshold", "update", "advance_loop", "prepare", "threshold", "update", "advance_loop"},
      "the nodes ran in another order");
  require(only(log, "cudaGraphLaunch").size() == 1, "the chain is not one launch");
}

CASE(allocations_are_zeroed) {
  const auto device = open_device(1);
  const OwnedMailbox mailbox(device);
  require(mailbox.get()->position == 0 && mailbox.get()->stop == 0, "pinned memory is not");
  const Block block(device, 400);
  const OwnedStream stream(device);
  std::vector<float> read(100, 1.0f);
  device->download(read.data(), block.data(), 400, stream.get());
  device->synchronize(stream.get());
  require(read == std::vector<float>(100), "device memory is not");
}

CASE(another_request_runs_on_the_same_graph) {
  Features features = everything();
  features.skips = false;  // so that all lengths call the same networks
  Made made = make_chain(open_device(0), features);
  for (const unsigned seed : {1u, 2u, 3u}) {
    for (const std::int64_t rows : {9, 1, 4}) {
      made.features.rows = rows;
      begin(made, Path::kWhile, seed);
      made.chain->advance(rows, nothing);
      require(results_of(made) == expected(made.features, Path::kWhile, seed), "other bits");
    }
  }
  require(only(strict::taken_log(), "cudaGraphInstantiate").size() <= 3, "a graph per request was made");
}

CASE(a_chain_may_be_run_in_pieces) {
  Features features = everything();
  features.rows = 12;
  for (const Path path : kPaths) {
    Made made = make_chain(open_device(0), features);
    begin(made, path, 5);
    for (const std::int64_t count : {1, 0, 4, 99}) made.chain->advance(count, nothing);
    require(results_of(made) == expected(features, path, 5), "other bits");
  }
}

// Launches behind launches, without a wait between them.
CASE(pieces_are_ordered_on_the_device) {
  for (const bool staged : {true, false}) {
    strict::runtime().machine.stages_pageable = staged;
    Features features = everything();
    features.rows = 12;
    Made made = make_chain(open_device(0), features);
    begin(made, Path::kWhile, 5);
    for (const std::int64_t count : {1, 4, 99}) made.chain->launch(count, nothing);
    require(made.chain->wait(12, 60.0, nothing) == 12, "rows are missing");
    require(results_of(made) == expected(features, Path::kWhile, 5), "other bits");
  }
}

CASE(snapshots_are_read_while_the_chain_runs) {
  Features features = everything();
  features.rows = 14;
  features.every = 1, features.slots = 14;
  Made made = make_chain(open_device(0), features), whole = make_chain(open_device(0), features);
  for (Made* one : {&made, &whole}) begin(*one, Path::kWhile, 7);
  whole.chain->advance(14, nothing);
  made.chain->launch(14, nothing);
  std::vector<float> got(made.chain->shape().elements()), wanted(got.size());
  bool running = false;
  for (std::int64_t row = 1; row <= 14; ++row) {
    running = made.chain->wait(row, 60.0, nothing) < 14 || running;
    for (const bool denoised : {false, true}) {
      made.chain->read_snapshot(row, denoised, got.data());
      whole.chain->read_snapshot(row, denoised, wanted.data());
      require(got == wanted, "another snapshot of row " + std::to_string(row));
    }
  }
  require(running, "the chain was over before the first snapshot");
}

CASE(another_thread_ends_the_chain_early) {
  Features features;
  features.rows = 2000;
  for (const Path path : kPaths) {
    Made made = make_chain(open_device(0), features);
    begin(made, path, 3);
    std::atomic<bool> stop{false};
    std::thread other([&] {
      while (made.chain->position() < 20) std::this_thread::yield();
      stop = true;
    });
    struct Stopped {};
    bool thrown = false;
    try {
      made.chain->advance(2000, [&] {
        if (stop) throw Stopped();
      });
    } catch (const Stopped&) {
      thrown = true;
    }
    other.join();
    require(thrown, "nobody was stopped");
    const std::int64_t done = made.chain->position();
    require(done >= 20 && done < 2000, "the chain went on to row " + std::to_string(done));
    if (path == Path::kWhile) require(done % kStopEvery == 0, "the loop ended between its looks at the flag");
    made.chain->advance(2000, nothing);  // and goes on where it was
    require(results_of(made) == expected(features, path, 3), "other bits");
  }
}

CASE(the_second_device_need_not_be_current) {
  const Features features = everything();
  const auto current = [] {
    int device = -1;
    cudaGetDevice(&device);
    return device;
  };
  const auto device = open_device(1);
  require(device->name() == "cuda:1, Strict 1, sm_91", device->name());
  require(device->dlpack_index() == 1 && device->dlpack_type() == 2, "another device for DLPack");
  for (const Path path : kPaths) {
    require(run_chain(device, features, path, 4) == expected(features, path, 4), "other bits");
    require(current() == 0, "the current device was left changed");
  }
  {
    const CurrentDevice here(*device);
    require(current() == 1, "the device is not the current one");
    require(run_chain(open_device(0), features, Path::kWhile, 4) == expected(features, Path::kWhile, 4),
            "other bits");
    require(current() == 1, "the current device was left changed");
  }
  require(current() == 0, "the device before did not come back");
  require(strict::runtime().used[0] == 0 && strict::runtime().used[1] == 0, "memory is left");
}

CASE(chains_run_in_threads_on_both_devices) {
  strict::runtime().machine.schedule = Schedule::kRandom;
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 6; ++i) {
    threads.emplace_back([i] {
      Features features = i % 2 == 0 ? everything() : features_of(0x1234u * i, i);
      features.foreign = false;
      for (unsigned round = 0; round < 3; ++round) {
        const Path path = kPaths[(i + round) % 3];
        require(
            run_chain(open_device(static_cast<int>(i % 2)), features, path, i) == expected(features, path, i),
            "other bits in thread " + std::to_string(i));
      }
    });
  }
  for (auto& thread : threads) thread.join();
}
