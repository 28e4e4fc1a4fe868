// Calls that fail: the right exception comes out, nothing is left behind, and the next chain works.
#include "cases.h"

using namespace pysdk::cuda;

namespace {

Features small() {
  Features features = everything();
  features.batch = 2, features.channels = 1, features.height = 3, features.width = 2, features.rows = 4;
  return features;
}

const Results& wanted() {
  static const Results only = expected(small(), Path::kWhile, 6);
  return only;
}

struct Outcome {
  std::string kind, text, why;  // kind: "fine" or the class of the error
  bool right_bits = false;
};

// A whole life on the second device: found, allocated, begun, run in a graph if possible, read, released.
Outcome live(Path path = Path::kWhile) {
  Outcome outcome;
  try {
    Made made = make_chain(open_device(1), small());
    begin(made, path, 6, false);
    made.chain->advance(99, nothing);
    outcome.why = made.chain->why();
    require(made.chain->device().memory().free < strict::runtime().machine.memory,
            "memory in use is not counted");
    outcome.right_bits = results_of(made) == wanted();
    outcome.kind = "fine";
  } catch (const OutOfMemory& error) {
    outcome.kind = "OutOfMemory", outcome.text = error.what();
  } catch (const CaptureRefused& error) {
    outcome.kind = "CaptureRefused", outcome.text = error.what();
  } catch (const Error& error) {
    outcome.kind = "Error", outcome.text = error.what();
  }
  return outcome;
}

// Lets each call of `name` in a life fail in turn; `check` gets what came of it.
template <typename F>
void fail_each(const std::string& name, cudaError_t error, Path path, F&& check) {
  for (int nth = 1;; nth += 1 + nth / 20) {  // what is called often is not tried every time
    strict::fail(name, nth, error);
    const Outcome outcome = live(path);
    const bool happened = strict::failed(name);
    strict::runtime().failures.clear();
    const std::string which = name + ", call " + std::to_string(nth) + ": ";
    if (!happened) {
      require(nth > 1 || path != Path::kWhile, which + "never called");
      return;
    }
    require(outcome.kind != "fine" || outcome.right_bits, which + "other bits");
    check(outcome, which + outcome.kind + " " + outcome.text);
    if (name == "cudaSetDevice") cudaSetDevice(0);  // what could not be put back
    require_nothing_left();
    const Outcome next = live(path);
    require(next.kind == "fine" && next.why.empty() && next.right_bits,
            which + "the next chain: " + next.text);
  }
}

}  // namespace

CASE(a_failed_call_is_an_error) {
  for (const char* name :
       {"cudaGetDevice", "cudaSetDevice", "cudaGetDeviceProperties", "cudaFuncGetAttributes",
        "cudaMemGetInfo", "cudaMalloc", "cudaMemset", "cudaHostAlloc", "cudaMemcpyAsync",
        "cudaStreamSynchronize", "cudaStreamCreateWithFlags", "cudaStreamQuery", "cudaGraphCreate",
        "cudaGraphLaunch", "cudaLaunchKernel"}) {
    // put back, and waited for, also where nobody can be told
    const bool ends_lives =
        std::string(name) == "cudaSetDevice" || std::string(name) == "cudaStreamSynchronize";
    for (const Path path : {Path::kWhile, Path::kPlain}) {
      fail_each(name, cudaErrorUnknown, path, [&](const Outcome& outcome, const std::string& which) {
        const bool said =
            outcome.kind == "Error" && outcome.text.find("(cudaErrorUnknown)") != std::string::npos;
        require(said || (outcome.kind == "fine" && (ends_lives || !outcome.why.empty())), which);
      });
    }
  }
}

CASE(no_memory_is_said_as_such) {
  for (const char* name : {"cudaMalloc", "cudaHostAlloc", "cudaStreamCreateWithFlags", "cudaGraphCreate",
                           "cudaGraphConditionalHandleCreate", "cudaGraphAddNode", "cudaGraphInstantiate",
                           "cudaGraphAddChildGraphNode", "cudaGraphLaunch", "cudaMemcpyAsync"}) {
    fail_each(name, cudaErrorMemoryAllocation, Path::kWhile,
              [](const Outcome& outcome, const std::string& which) {
                require(outcome.kind == "OutOfMemory", which);
              });
  }
}

// Whatever the driver has against a graph, there is a path without.
CASE(what_cannot_be_in_a_graph_is_left_out) {
  for (const char* name :
       {"cudaGraphConditionalHandleCreate", "cudaGraphAddNode", "cudaStreamBeginCaptureToGraph",
        "cudaStreamGetCaptureInfo", "cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphGetNodes",
        "cudaGraphAddChildGraphNode", "cudaGraphInstantiate"}) {
    for (const cudaError_t error :
         {cudaErrorUnknown, cudaErrorNotSupported, cudaErrorStreamCaptureInvalidated}) {
      fail_each(name, error, Path::kWhile, [&](const Outcome& outcome, const std::string& which) {
        require(outcome.kind == "fine" && outcome.why.find(name) == 0, which + " " + outcome.why);
      });
    }
  }
}

// A failure that nobody can be told of does not come out of a later call.
CASE(a_failed_release_is_not_the_next_calls_error) {
  for (const char* name :
       {"cudaFree", "cudaFreeHost", "cudaStreamDestroy", "cudaGraphDestroy", "cudaGraphExecDestroy"}) {
    fail_each(name, cudaErrorUnknown, Path::kWhile, [](const Outcome& outcome, const std::string& which) {
      require(outcome.kind == "fine", which);
    });
  }
}

// An illegal address costs the process its context: all calls fail from then on.
CASE(a_kernel_that_fails_is_an_error_for_good) {
  Made made = make_chain(open_device(0), small());
  for (const Path path : kPaths) {
    begin(made, path, 6);
    made.chain->advance(99, nothing);
  }
  begin(made, Path::kWhile, 6);
  made.chain->launch(99, nothing);
  strict::fail("run", 5, cudaErrorIllegalAddress);
  require_throws<Error>([&] { made.chain->wait(99, 60.0, nothing); },
                        "the device failed while it ran the chain: an error of the strict runtime "
                        "(cudaErrorIllegalAddress)");
  require_throws<Error>([&] { begin(made, Path::kWhile, 6); }, "cudaErrorIllegalAddress");
  require(live().kind == "Error", "another chain works after all");
}

CASE(memory_that_runs_out_is_named) {
  strict::runtime().machine.memory = 3 << 20;
  Features features;
  features.batch = 64, features.height = features.width = 64;
  require_throws<OutOfMemory>(
      [&] { make_chain(open_device(1), features); },
      "cuda:1, Strict 1, sm_91 has no room for 1 MiB: 0 of 3 MiB are free; use a smaller "
      "batch_size");
  require(live().right_bits, "a smaller chain does not fit");
}

CASE(a_driver_without_conditional_nodes_gets_a_launch_per_row) {
  strict::runtime().machine.conditional_nodes = false;
  const Outcome outcome = live();
  require(outcome.kind == "fine" && outcome.right_bits, outcome.text);
  require(outcome.why.find("cudaGraphConditionalHandleCreate: ") == 0, outcome.why);
}

namespace {

// A network that does something else while it is captured.
class Unruly : public pysdk::DeviceDenoiser {
 public:
  explicit Unruly(std::function<void(Stream)> captured) : captured_(std::move(captured)) {}
  void enqueue(void*) override {}
  void capture(void* stream) override { captured_(stream); }

 private:
  const std::function<void(Stream)> captured_;
};

std::string why_with(const std::shared_ptr<Device>& device, std::function<void(Stream)> captured) {
  CudaChain chain(device, shape_of({}));
  chain.attach({std::make_shared<Unruly>(std::move(captured)), nullptr});
  chain.begin(request_of({}, 1), {}, 0, 0);
  require(chain.advance(99, nothing) == 5, "rows were left out");
  return chain.why();
}

}  // namespace

CASE(what_a_capture_forbids_is_refused) {
  const auto device = open_device(1);
  const OwnedStream other(device);
  Block block(device, 64);
  const std::string refused = "(cudaErrorStreamCaptureUnsupported)";
  for (const auto& [name, act] : std::vector<std::pair<std::string, std::function<void(Stream)>>>{
           {"cudaMalloc", [&](Stream) { Block inner(device, 16); }},
           {"cudaHostAlloc", [&](Stream) { OwnedMailbox inner(device); }},
           {"the device failed", [&](Stream stream) { device->synchronize(stream); }},
           {"the device failed", [&](Stream stream) { device->finished(stream); }},
       }) {
    const std::string why = why_with(device, act);
    require(why.find(name) == 0 && why.find(refused) != std::string::npos, name + ": " + why);
  }
  // swallowed by the network: the capture is lost all the same, and says so
  const std::string why = why_with(device, [](Stream) {
    void* memory = nullptr;
    cudaMalloc(&memory, 16);
  });
  require(why.find("(cudaErrorStreamCaptureInvalidated)") != std::string::npos, why);
}

// As a garbage collector does it in the middle of a network's Python code.
CASE(a_release_during_a_capture_does_no_harm) {
  const auto device = open_device(1);
  auto array = std::make_shared<Block>(device, 64);
  auto mailbox = std::make_shared<OwnedMailbox>(device);
  auto chain = std::make_shared<Made>(make_chain(device, small()));
  begin(*chain, Path::kWhile, 6);
  chain->chain->launch(99, nothing);
  const std::string why = why_with(device, [&](Stream) { array.reset(), mailbox.reset(), chain.reset(); });
  require(why.empty(), why);
}

CASE(the_threads_own_capture_mode_stays) {
  for (int nth = 1; nth < 6; nth += 2) {  // every first of two, which relaxes it
    strict::fail("cudaThreadExchangeStreamCaptureMode", nth, cudaErrorUnknown);
    require(live().right_bits && strict::failed("cudaThreadExchangeStreamCaptureMode"), "no life without it");
    cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    cudaThreadExchangeStreamCaptureMode(&mode);
    require(mode == cudaStreamCaptureModeGlobal, "another mode was left");
  }
}

CASE(status_says_what_there_is) {
  auto& machine = strict::runtime().machine;
  const auto text_is = [](const std::string& text, int devices) {
    const Status now = status();
    require(now.built && now.devices == devices && now.text == text, now.text);
  };
  const std::string built = "built with CUDA " + std::to_string(CUDART_VERSION / 1000) + "." +
                            std::to_string(CUDART_VERSION % 1000 / 10);
  text_is(built + ", driver for CUDA 13.0, devices: 2", 2);
  require_throws<Error>([] { open_device(2); }, "there is no cuda:2; this machine has cuda:0 to cuda:1");
  require_throws<Error>([] { open_device(-1); }, "there is no cuda:-1");
  strict::fail("cudaGetDeviceCount", 1, cudaErrorUnknown);
  text_is(built + ", but there is no device: an error of the strict runtime", 0);
  machine.has_code = false;
  require_throws<Error>(
      [] { open_device(1); },
      "cuda:1, Strict 1, sm_91 cannot run this build: no kernel image is available for execution on "
      "the device (cudaErrorNoKernelImageForDevice)");
  machine.has_code = true;
  machine.devices = 0;
  const std::string none = built + ", but there is no device: no CUDA-capable device is detected";
  text_is(none, 0);
  require_throws<Error>([] { open_device(0); }, "cuda:0 cannot be used: " + none);
  machine.driver = 0;
  text_is(built + ", but there is no device: no NVIDIA driver is installed (libcuda.so.1 was not found)", 0);
  machine = {};
  require(live().right_bits, "no chain works afterwards");
}
