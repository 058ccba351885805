// Process groups behind the C interface: Gloo here, NCCL through csrc/cuda.cc.
#include "cuda.h"
#include "group.h"
#include "store.h"

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <cstdlib>
#include <future>
#include <sstream>

namespace {

using std::chrono::milliseconds;

// Gloo has no abort in libtorch 2.11: Backend::abort is empty. Signalling an
// exception on each connection is what gloo itself does when an operation times
// out: everything pending fails at once, here and, as the sockets close, on the peers.
class AbortableGloo final : public shim::GuardedBackend<c10d::ProcessGroupGloo> {
 public:
  using GuardedBackend::GuardedBackend;

  void abort() override {
    *aborted_ = true;
    fail_connections();
  }

  // The base class joins threads that may still be blocked in a collective whose
  // caller gave up on it (a failed backward leaves some): they must not wait for a peer.
  ~AbortableGloo() override {
    shim::swallowed([this] { fail_connections(); });
  }

 private:
  void fail_connections() {
    for (const auto& context : contexts_) {
      for (int peer = 0; peer < getSize(); ++peer) {
        // The only transport of Linux builds is TCP (plain or TLS), whose Pair has
        // transport::Pair as first base: both pointers have one value.
        if (auto& pair = context->getPair(peer)) {
          reinterpret_cast<gloo::transport::tcp::Pair*>(pair.get())
              ->signalExceptionExternal("the process group was aborted");
        }
      }
    }
  }
};

// Connections are made at once, never lazily, so that abort finds all of them.
std::vector<std::shared_ptr<gloo::transport::Device>> devices(const char* host) {
  using c10d::ProcessGroupGloo;
  if (host != nullptr) {
    return {ProcessGroupGloo::createDeviceForHostname(host, /*lazyInit=*/false)};
  }
  std::vector<std::shared_ptr<gloo::transport::Device>> result;
  if (const char* names = std::getenv("GLOO_SOCKET_IFNAME")) {
    std::istringstream list(names);
    for (std::string name; std::getline(list, name, ',');) {
      if (!name.empty()) {
        result.push_back(ProcessGroupGloo::createDeviceForInterface(name, /*lazyInit=*/false));
      }
    }
  }
  if (result.empty()) {
    result.push_back(ProcessGroupGloo::createDefaultDevice(/*lazyInit=*/false));
  }
  return result;
}

// Returns when all ranks have come here.
void wait_for_all(shim::InterruptibleStore& view, int32_t world_size, const std::string& where) {
  const auto everybody = where + "/all";
  if (view.add(where, 1) == world_size) {
    view.set(everybody, std::vector<uint8_t>{1});
  }
  view.wait({everybody});
}

// Nothing interrupts NCCL while it sets up, and a peer that dies meanwhile may keep it there. So it
// does that on a thread of its own, which is left alone where this rank must not wait for it. All
// ranks begin together, which makes that rare.
c10::intrusive_ptr<c10d::Backend> connect_nccl(
    const c10::intrusive_ptr<shim::InterruptibleStore>& view, int32_t rank, int32_t world_size,
    int32_t device, milliseconds connect_timeout, int64_t timeout_ms,
    const shim::AbortFlag& aborted) {
  wait_for_all(*view, world_size, "arrived");
  std::packaged_task<c10::intrusive_ptr<c10d::Backend>()> task([=] {
    return shim::nccl_backend(view, rank, world_size, device, timeout_ms, aborted);
  });
  auto connected = task.get_future();
  std::thread(std::move(task)).detach();
  const auto deadline = std::chrono::steady_clock::now() + connect_timeout;
  while (connected.wait_for(milliseconds(10)) != std::future_status::ready) {
    try {
      view->go_on_waiting(deadline, "NCCL to set up");
    } catch (...) {
      // Whatever it sets up is aborted at once.
      *aborted = true;
      throw;
    }
  }
  return connected.get();
}

// Builds the group around the backend that `connect` makes over a store view.
template <typename Connect>
Status build(
    ShimStore* store, const char* prefix, int32_t rank, int32_t world_size, int64_t connect_ms,
    c10::DeviceType device_type, c10d::ProcessGroup::BackendType backend_type,
    std::optional<int32_t> device, Connect&& connect, ShimGroup** out) {
  c10::intrusive_ptr<shim::InterruptibleStore> view;
  Status result = shim::guarded([&] {
    view = c10::make_intrusive<shim::InterruptibleStore>(
        prefix, *store, milliseconds(connect_ms));
    auto aborted = std::make_shared<std::atomic<bool>>(false);
    c10::intrusive_ptr<c10d::Backend> backend = connect(view, aborted);
    // A rank that has its connections may use the group and leave it while a slower one still
    // makes them, and that one would fail to join.
    wait_for_all(*view, world_size, "connected");
    auto group = c10::make_intrusive<c10d::ProcessGroup>(view, rank, world_size);
    if (device) {
      group->setBoundDeviceId(at::Device(device_type, static_cast<c10::DeviceIndex>(*device)));
    }
    group->setDefaultBackend(backend_type);
    group->setBackend(device_type, backend_type, backend);
    *out = new ShimGroup{std::move(group), std::move(backend), std::move(aborted), device};
  });
  if (result.kind == kFailed && view) {
    if (view->interrupted()) {
      result.kind = kAborted;
    } else if (view->timed_out()) {
      result.kind = kRendezvousTimedOut;
    }
  }
  return result;
}

// Gloo and NCCL read `numel` elements from the data pointer, whatever the strides.
void require_dense(const at::Tensor& tensor) {
  TORCH_CHECK(
      tensor.layout() == at::kStrided && tensor.is_non_overlapping_and_dense(),
      "a collective needs a dense tensor without gaps or overlaps; this one has sizes ",
      tensor.sizes(), " and strides ", tensor.strides());
}

// Waits for all of them, whatever fails: nothing may still write to the tensors
// when their owner has them back.
void wait_all(const std::vector<c10::intrusive_ptr<c10d::Work>>& works) {
  std::exception_ptr first;
  for (const auto& work : works) {
    try {
      TORCH_CHECK(work->wait(), "the collective was aborted");
    } catch (...) {
      if (!first) {
        first = std::current_exception();
      }
    }
  }
  if (first) {
    std::rethrow_exception(first);
  }
}

} // namespace

Status c10d_group_new_gloo(
    ShimStore* store, const char* prefix, int32_t rank, int32_t world_size, const char* host,
    int64_t connect_ms, int64_t timeout_ms, ShimGroup** out) {
  const auto connect = [&](const auto& view, const shim::AbortFlag& aborted) {
    auto options = c10d::ProcessGroupGloo::Options::create(milliseconds(connect_ms));
    options->devices = devices(host);
    options->threads = static_cast<int>(options->devices.size()) * 2;
    auto backend = c10::make_intrusive<AbortableGloo>(aborted, view, rank, world_size, options);
    backend->setTimeout(milliseconds(timeout_ms));
    return backend;
  };
  return build(
      store, prefix, rank, world_size, connect_ms, at::kCPU,
      c10d::ProcessGroup::BackendType::GLOO, std::nullopt, connect, out);
}

Status c10d_group_new_nccl(
    ShimStore* store, const char* prefix, int32_t rank, int32_t world_size, int32_t device,
    int64_t connect_ms, int64_t timeout_ms, ShimGroup** out) {
  const auto connect = [&](const auto& view, const shim::AbortFlag& aborted) {
    return connect_nccl(
        view, rank, world_size, device, milliseconds(connect_ms), timeout_ms, aborted);
  };
  return build(
      store, prefix, rank, world_size, connect_ms, at::kCUDA,
      c10d::ProcessGroup::BackendType::NCCL, device, connect, out);
}

Status c10d_group_all_reduce_sum(ShimGroup* group, at::Tensor* tensor) {
  return shim::guarded_by(group->aborted, [&] {
    require_dense(*tensor);
    std::vector<at::Tensor> tensors{*tensor};
    wait_all({group->backend->allreduce(tensors, c10d::AllreduceOptions())});
  });
}

Status c10d_group_broadcast(ShimGroup* group, at::Tensor** tensors, size_t count, int32_t root) {
  return shim::guarded_by(group->aborted, [&] {
    for (size_t i = 0; i < count; ++i) {
      require_dense(*tensors[i]);
    }
    c10d::BroadcastOptions options;
    options.rootRank = root;
    std::vector<c10::intrusive_ptr<c10d::Work>> works;
    std::exception_ptr start_failed;
    for (size_t i = 0; i < count && !start_failed; ++i) {
      std::vector<at::Tensor> one{*tensors[i]};
      try {
        works.push_back(group->backend->broadcast(one, options));
      } catch (...) {
        start_failed = std::current_exception();
      }
    }
    wait_all(works);
    if (start_failed) {
      std::rethrow_exception(start_failed);
    }
  });
}

Status c10d_group_check(ShimGroup* group) {
  return shim::guarded_by(group->aborted, [&] {
    TORCH_CHECK(!*group->aborted, "the process group was aborted");
    if (!group->device) {
      return;
    }
    switch (group->backend->getError()) {
      case c10d::ErrorType::SUCCESS:
        return;
      case c10d::ErrorType::TIMEOUT:
        TORCH_CHECK(false, "an NCCL collective timed out");
      case c10d::ErrorType::COMM_ERROR:
        TORCH_CHECK(false, "NCCL lost the connection to a peer");
      default:
        TORCH_CHECK(false, "a peer reported an NCCL error");
    }
  });
}

Status c10d_group_abort(ShimGroup* group) {
  return shim::guarded([&] {
    // First, so that calls which fail because of the abort know why.
    *group->aborted = true;
    group->backend->abort();
  });
}

void c10d_group_free(ShimGroup* group) {
  shim::swallowed([&] { delete group; });
}
