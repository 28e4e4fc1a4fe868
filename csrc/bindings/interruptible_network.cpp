// Networks of foreign libraries, which only they themselves can leave.
#include <pybind11/stl.h>
#include <unistd.h>

#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>

#include "base/float_state.h"
#include "bindings/bindings.h"
#include "bindings/chain_parts.h"

namespace pysdk {

namespace {

using Interrupt = py::typing::Callable<py::object(bool)>;

// `run` is called on a thread of its own, while the thread that called watches: a library's call does not
// come back for a look.
class InterruptibleNetwork : public Denoiser {
 public:
  InterruptibleNetwork(py::object run, py::object interrupt)
      : run_(std::move(run)), interrupt_(std::move(interrupt)) {}
  InterruptibleNetwork(const InterruptibleNetwork&) = delete;
  ~InterruptibleNetwork() override {
    if (!thread_) return;
    if (process_ != getpid()) {  // a fork has no such thread
      static_cast<void>(thread_.release());
      return;
    }
    {
      const std::lock_guard lock(mutex_);
      state_ = State::kEnd;
    }
    changed_.notify_all();
    const py::gil_scoped_release release;  // which the thread may still be giving back
    thread_->join();
  }

  // Without the GIL.
  void enqueue(Watch& watch) override {
    if (thread_ && process_ != getpid()) {
      throw std::runtime_error("the network was bound before the process forked; bind it in the child");
    }
    std::unique_lock lock(mutex_);
    if (state_ != State::kIdle) {
      throw std::runtime_error("the network is already running on another thread; bind one per thread");
    }
    if (!thread_) {
      process_ = getpid();
      thread_ = std::make_unique<std::thread>([this] { serve(); });
    }
    state_ = State::kRun;
    changed_.notify_all();
    while (!changed_.wait_for(lock, kLookInterval, [this] { return state_ == State::kDone; })) {
      lock.unlock();
      const bool before = watch.stopped();
      if (watch.look() && !before) interrupt(true);
      lock.lock();
    }
    state_ = State::kIdle;
    std::exception_ptr error = std::move(error_);
    lock.unlock();
    if (watch.stopped()) {
      interrupt(false);
      watch.leave();
    }
    if (error) std::rethrow_exception(error);
  }

  void call() {
    const py::gil_scoped_release release;
    Watch watch{Interrupts()};
    enqueue(watch);
  }

 private:
  enum class State { kIdle, kRun, kDone, kEnd };

  void interrupt(bool stop) const {
    const py::gil_scoped_acquire gil;
    interrupt_(stop);
  }

  void serve() {
    const FloatState standard;
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return state_ == State::kRun || state_ == State::kEnd; });
      if (state_ == State::kEnd) return;
      lock.unlock();
      std::exception_ptr error;
      {
        const py::gil_scoped_acquire gil;
        try {
          run_();
        } catch (...) {
          error = std::current_exception();
        }
      }
      lock.lock();
      error_ = std::move(error);
      state_ = State::kDone;
      changed_.notify_all();
    }
  }

  py::object run_, interrupt_;
  std::mutex mutex_;
  std::condition_variable changed_;
  State state_ = State::kIdle;
  std::exception_ptr error_;
  std::unique_ptr<std::thread> thread_;
  pid_t process_ = 0;
};

}  // namespace

void register_denoisers(py::module_& module) {
  py::class_<Denoiser, std::shared_ptr<Denoiser>>(module, "Denoiser",
                                                  "A network that a chain runs natively.");
  py::class_<InterruptibleNetwork, Denoiser, std::shared_ptr<InterruptibleNetwork>>(
      module, "InterruptibleNetwork", py::is_final(),
      "A foreign library's network that runs on a thread of its own, so that its caller can leave it.")
      .def(py::init([](const Denoise& run, const Interrupt& interrupt) {
             return std::make_shared<InterruptibleNetwork>(run, interrupt);
           }),
           py::arg("run"), py::arg("interrupt"),
           R"doc(Args:
    run: runs the network once on buffers bound beforehand; releases the GIL meanwhile.
    interrupt: with True makes a run in progress, or the next one, raise soon; with False no more.)doc")
      .def("__call__", &InterruptibleNetwork::call, py::call_guard<FloatState>(),
           R"doc(Run the network once.

Raises:
    RuntimeError: it is running already.)doc");
}

}  // namespace pysdk
