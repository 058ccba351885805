// Implements shim.h for the CPU half of libtorch. Holds no state: every object belongs to the
// caller, who drops it exactly once.
#include "shim.h"

#include <ATen/autocast_mode.h>
#include <dlfcn.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <cstring>

namespace {

using StorePtr = c10::intrusive_ptr<c10d::Store>;
using GroupPtr = c10::intrusive_ptr<c10d::ProcessGroup>;
using BackendPtr = c10::intrusive_ptr<c10d::Backend>;
// The one function of the NCCL object, see nccl.cc.
using MakeNccl = char* (*)(void* store, int rank, int size, int64_t timeout_ms, void* backend);

struct Group {
  GroupPtr group;
  BackendPtr backend;
};

template <typename Work>
char* guarded(Work work) {
  try {
    work();
    return nullptr;
  } catch (const c10::Error& error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("an exception of unknown type");
  }
}

at::Tensor& tensor(void* pointer) {
  return *static_cast<at::Tensor*>(pointer);
}

std::vector<at::Tensor> tensors(void* const* pointers, size_t count) {
  std::vector<at::Tensor> result;
  result.reserve(count);
  for (size_t i = 0; i < count; ++i) result.push_back(tensor(pointers[i]));
  return result;
}

Group& as_group(void* group) {
  return *static_cast<Group*>(group);
}

c10d::Reducer& as_reducer(void* reducer) {
  return *static_cast<c10d::Reducer*>(reducer);
}

void wait(const c10::intrusive_ptr<c10d::Work>& work) {
  work->wait();
}

}  // namespace

extern "C" {

void shim_free(char* message) {
  free(message);
}

const char* shim_libtorch_version() {
  return TORCH_VERSION;
}

char* shim_store_serve(const char* host, int64_t timeout_ms, void** store, uint16_t* port) {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = 0;
    options.isServer = true;
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    auto made = c10::make_intrusive<c10d::TCPStore>(host, options);
    *port = made->getPort();
    *store = new StorePtr(std::move(made));
  });
}

char* shim_store_connect(const char* host, uint16_t port, int64_t timeout_ms, void** store) {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    *store = new StorePtr(c10::make_intrusive<c10d::TCPStore>(host, options));
  });
}

void shim_store_drop(void* store) {
  guarded([&] { delete static_cast<StorePtr*>(store); });
}

char* shim_group_new(void* store, const char* prefix, int rank, int size, const char* host,
                     int nccl_device, void* make_nccl, int64_t timeout_ms, void** group) {
  return guarded([&] {
    StorePtr prefixed =
        c10::make_intrusive<c10d::PrefixStore>(prefix, *static_cast<StorePtr*>(store));
    BackendPtr backend;
    const bool nccl = nccl_device >= 0;
    if (nccl) {
      char* error = reinterpret_cast<MakeNccl>(make_nccl)(&prefixed, rank, size, timeout_ms, &backend);
      if (error != nullptr) {
        std::string message(error);
        free(error);
        throw std::runtime_error(message);
      }
    } else {
      auto options = c10d::ProcessGroupGloo::Options::create(std::chrono::milliseconds(timeout_ms));
      const char* interface = getenv("GLOO_SOCKET_IFNAME");
      options->devices.push_back(
          interface != nullptr ? c10d::ProcessGroupGloo::createDeviceForInterface(interface)
          : host != nullptr    ? c10d::ProcessGroupGloo::createDeviceForHostname(host)
                               : c10d::ProcessGroupGloo::createDefaultDevice());
      backend = c10::make_intrusive<c10d::ProcessGroupGloo>(prefixed, rank, size, options);
    }
    auto made = c10::make_intrusive<c10d::ProcessGroup>(prefixed, rank, size);
    const auto type =
        nccl ? c10d::ProcessGroup::BackendType::NCCL : c10d::ProcessGroup::BackendType::GLOO;
    const auto device = nccl ? c10::DeviceType::CUDA : c10::DeviceType::CPU;
    made->setBackend(device, type, backend);
    made->setDefaultBackend(type);
    made->setGroupName(prefix);
    *group = new Group{std::move(made), std::move(backend)};
  });
}

void shim_group_drop(void* group) {
  guarded([&] { delete static_cast<Group*>(group); });
}

char* shim_group_all_reduce(void* group, void* value) {
  return guarded([&] {
    std::vector<at::Tensor> values{tensor(value)};
    wait(as_group(group).group->allreduce(values));
  });
}

char* shim_group_broadcast(void* group, void* const* values, size_t count, int root) {
  return guarded([&] {
    c10::InferenceMode no_grad(false);
    at::NoGradGuard guard;
    c10d::BroadcastOptions options;
    options.rootRank = root;
    std::vector<c10::intrusive_ptr<c10d::Work>> works;
    std::vector<std::vector<at::Tensor>> lists;
    lists.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      auto& value = tensor(values[i]);
      // Collectives want dense memory; channels_last is dense in another order.
      auto dense = value.detach().contiguous();
      lists.push_back({dense});
      wait(as_group(group).group->broadcast(lists.back(), options));
      if (!dense.is_same(value)) value.detach().copy_(dense);
    }
  });
}

char* shim_group_barrier(void* group) {
  return guarded([&] { wait(as_group(group).group->barrier()); });
}

char* shim_group_abort(void* group) {
  return guarded([&] { as_group(group).backend->abort(); });
}

char* shim_reducer_new(void* const* parameters, size_t count, void* group, size_t first_bucket,
                       size_t bucket, bool gradient_as_view, void** reducer) {
  return guarded([&] {
    auto params = tensors(parameters, count);
    const std::vector<bool> sparse(count, false);
    auto [indices, limits] =
        c10d::compute_bucket_assignment_by_size(params, {first_bucket, bucket}, sparse);
    // The backward pass meets the last parameters first.
    std::reverse(indices.begin(), indices.end());
    std::reverse(limits.begin(), limits.end());
    *reducer = new c10d::Reducer(
        std::move(params), std::move(indices), as_group(group).group, sparse,
        static_cast<int64_t>(bucket), false, gradient_as_view, {},
        static_cast<int64_t>(first_bucket), false, false, {});
  });
}

void shim_reducer_drop(void* reducer) {
  guarded([&] { delete static_cast<c10d::Reducer*>(reducer); });
}

char* shim_reducer_prepare_forward(void* reducer) {
  return guarded([&] { as_reducer(reducer).prepare_for_forward(); });
}

char* shim_reducer_prepare_backward(void* reducer, void* loss) {
  return guarded([&] { as_reducer(reducer).prepare_for_backward({tensor(loss)}); });
}

char* shim_reducer_compute_nanos(void* reducer, int64_t* nanos) {
  return guarded([&] {
    const auto stats = as_reducer(reducer).get_backward_stats();
    *nanos = stats.empty() ? 0 : *std::max_element(stats.begin(), stats.end());
  });
}

char* shim_channels_last(void* value, void** result) {
  return guarded([&] {
    *result = new at::Tensor(tensor(value).contiguous(at::MemoryFormat::ChannelsLast));
  });
}

char* shim_zero_grads(void* const* parameters, size_t count) {
  return guarded([&] {
    at::NoGradGuard guard;
    for (size_t i = 0; i < count; ++i) {
      auto& grad = tensor(parameters[i]).mutable_grad();
      if (grad.defined()) grad.zero_();
    }
  });
}

void shim_autocast_enter(bool cuda, bool* previous, int* previous_type) {
  const auto device = cuda ? at::kCUDA : at::kCPU;
  *previous = at::autocast::is_autocast_enabled(device);
  *previous_type = static_cast<int>(at::autocast::get_autocast_dtype(device));
  at::autocast::increment_nesting();
  at::autocast::set_autocast_dtype(device, at::kBFloat16);
  at::autocast::set_autocast_enabled(device, true);
}

void shim_autocast_exit(bool cuda, bool previous, int previous_type) {
  const auto device = cuda ? at::kCUDA : at::kCPU;
  at::autocast::set_autocast_enabled(device, previous);
  at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(previous_type));
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
}

char* shim_fused_adam(void* const* parameters, void* const* averages, void* const* squares,
                      void* const* steps, size_t count, double rate, double beta1, double beta2,
                      double weight_decay, double epsilon) {
  return guarded([&] {
    at::NoGradGuard guard;
    auto params = tensors(parameters, count);
    std::vector<at::Tensor> grads;
    grads.reserve(count);
    for (auto& param : params) grads.push_back(param.grad());
    auto counts = tensors(steps, count);
    for (auto& step : counts) step.add_(1);
    auto exp_avgs = tensors(averages, count);
    auto exp_avg_sqs = tensors(squares, count);
    at::_fused_adam_(params, grads, exp_avgs, exp_avg_sqs, {}, counts, rate, beta1, beta2,
                     weight_decay, epsilon, false, false);
  });
}

char* shim_open_library(const char* path, void** handle) {
  *handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
  return *handle == nullptr ? strdup(dlerror()) : nullptr;
}

void* shim_symbol(void* handle, const char* name) {
  return dlsym(handle, name);
}

}  // extern "C"
