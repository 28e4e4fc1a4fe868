// Cases that are run by name, and chains on two devices to compare.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/cuda_chain.h"
#include "runtime.h"
#include "testing/simulated_device.h"

struct Case {
  Case(const char* name, void (*run)());
};
#define CASE(name)                               \
  static void name();                            \
  static const Case case_of_##name(#name, name); \
  static void name()

void require(bool condition, const std::string& what);
// Ends with an E whose text holds `text`.
template <typename E, typename F>
void require_throws(F&& f, const std::string& text) {
  try {
    f();
  } catch (const E& error) {
    require(typeid(error) == typeid(E) && std::string(error.what()).find(text) != std::string::npos,
            "not this error: " + std::string(error.what()) + "; expected: " + text);
    return;
  }
  require(false, "no error; expected: " + text);
}
void require_nothing_left();

// What a chain is made of: a random one with these features.
struct Features {
  bool guided = false, half = false, learned = false, known = false, foreign = false;
  bool initial = false, skips = false, keeps_y = false, keeps_d2 = false;
  pysdk::ClipKind clip = pysdk::ClipKind::kNone;
  std::int64_t batch = 3, channels = 1, height = 5, width = 3, rows = 5;
  std::int32_t every = 0, slots = 0;
};
constexpr unsigned kFeatureBits = 13;
Features features_of(unsigned bits, unsigned seed);
Features everything();

pysdk::ChainShape shape_of(const Features& features);
pysdk::Request request_of(const Features& features, unsigned seed);

// A chain with networks that compute the same on the strict runtime and on the simulated device.
struct Made {
  Features features;
  std::shared_ptr<pysdk::cuda::Block> copy,
      bytes;  // for results; they outlive work that a failure left behind
  std::unique_ptr<pysdk::cuda::CudaChain> chain;
};
Made make_chain(const std::shared_ptr<pysdk::cuda::Device>& device, const Features& features);
void begin(Made& made, pysdk::cuda::Path path, unsigned seed, bool forced = true);
void nothing();  // a poll

// Everything that comes out of a chain: x, D, bytes, snapshots.
struct Results {
  std::vector<float> x, denoised, snapshots;
  std::vector<std::uint8_t> bytes;
  std::int64_t broken = -2;
  bool operator==(const Results& other) const;
};
Results results_of(Made& made);
Results run_chain(const std::shared_ptr<pysdk::cuda::Device>& device, const Features& features,
                  pysdk::cuda::Path path, unsigned seed);
Results expected(const Features& features, pysdk::cuda::Path path, unsigned seed);

constexpr pysdk::cuda::Path kPaths[] = {pysdk::cuda::Path::kWhile, pysdk::cuda::Path::kStep,
                                        pysdk::cuda::Path::kPlain};
inline const char* name_of(pysdk::cuda::Path path) {
  return path == pysdk::cuda::Path::kWhile ? "while" : path == pysdk::cuda::Path::kStep ? "step" : "plain";
}
