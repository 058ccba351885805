// Autocast for the CPU and CUDA; tch offers it for CUDA alone.
#include "abi.h"

#include <status.h>

#include <ATen/autocast_mode.h>

Status kernels_autocast_enter(int32_t device_type, AutocastState* previous) {
  return shim::guarded([&] {
    const auto device = static_cast<at::DeviceType>(device_type);
    previous->enabled = at::autocast::is_autocast_enabled(device) ? 1 : 0;
    previous->dtype = static_cast<int32_t>(at::autocast::get_autocast_dtype(device));
    at::autocast::set_autocast_dtype(device, at::kBFloat16);
    at::autocast::set_autocast_enabled(device, true);
    at::autocast::increment_nesting();
  });
}

void kernels_autocast_leave(int32_t device_type, const AutocastState* previous) {
  shim::swallowed([&] {
    const auto device = static_cast<at::DeviceType>(device_type);
    if (at::autocast::decrement_nesting() == 0) {
      at::autocast::clear_cache();
    }
    at::autocast::set_autocast_enabled(device, previous->enabled != 0);
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(previous->dtype));
  });
}
