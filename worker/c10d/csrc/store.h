// The store handle, and the view of it that one process group gets.
#pragma once

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

struct ShimStore {
  c10::intrusive_ptr<c10d::TCPStore> inner;
  std::shared_ptr<std::atomic<bool>> interrupted = std::make_shared<std::atomic<bool>>(false);
};

namespace shim {

// A PrefixStore whose waits can be interrupted, and which remembers how they
// ended. TCPStore's own wait blocks in the socket, and holds the store's lock
// against every other thread, until its timeout: a rank that dies before it joins
// would pin the others for as long. So this one asks, sleeps and asks again.
class InterruptibleStore : public c10d::PrefixStore {
 public:
  InterruptibleStore(
      const std::string& prefix, const ShimStore& store, std::chrono::milliseconds timeout)
      : PrefixStore(prefix, store.inner), interrupted_(store.interrupted), timeout_(timeout) {}

  void wait(const std::vector<std::string>& keys) override {
    wait(keys, timeout_);
  }

  void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds& timeout)
      override {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    auto pause = std::chrono::milliseconds(1);
    while (!check(keys)) {
      go_on_waiting(deadline, c10::str("a peer that writes ", keys));
      std::this_thread::sleep_for(pause);
      pause = std::min(pause * 2, std::chrono::milliseconds(20));
    }
  }

  // Throws when a wait has been interrupted, or has lasted until `deadline`.
  void go_on_waiting(std::chrono::steady_clock::time_point deadline, const std::string& what) {
    TORCH_CHECK(!*interrupted_, "interrupted while waiting for ", what);
    if (std::chrono::steady_clock::now() >= deadline) {
      timed_out_ = true;
      TORCH_CHECK(false, "timed out while waiting for ", what);
    }
  }

  std::vector<uint8_t> get(const std::string& key) override {
    wait({key}, timeout_);
    return PrefixStore::get(key);
  }

  std::vector<std::vector<uint8_t>> multiGet(const std::vector<std::string>& keys) override {
    wait(keys, timeout_);
    return PrefixStore::multiGet(keys);
  }

  bool interrupted() const {
    return *interrupted_;
  }

  bool timed_out() const {
    return timed_out_;
  }

 private:
  std::shared_ptr<std::atomic<bool>> interrupted_;
  std::chrono::milliseconds timeout_;
  std::atomic<bool> timed_out_{false};
};

} // namespace shim
