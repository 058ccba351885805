// TCPStore behind the C interface.
#include "abi.h"
#include "store.h"

#include <status.h>

#include <torch/headeronly/version.h>

static_assert(
    TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR == 11,
    "tch 0.24 and these headers are made for libtorch 2.11: point LIBTORCH at it");

namespace {

c10d::TCPStoreOptions options(uint16_t port, int64_t timeout_ms) {
  c10d::TCPStoreOptions options;
  options.port = port;
  options.waitWorkers = false;
  options.timeout = std::chrono::milliseconds(timeout_ms);
  return options;
}

} // namespace

Status c10d_store_serve(
    const char* host, uint16_t port, int listen_fd, int64_t timeout_ms, ShimStore** out) {
  return shim::guarded([&] {
    auto opts = options(port, timeout_ms);
    opts.isServer = true;
    opts.masterListenFd = listen_fd;
    *out = new ShimStore{c10::make_intrusive<c10d::TCPStore>(host, opts)};
  });
}

Status c10d_store_connect(const char* host, uint16_t port, int64_t timeout_ms, ShimStore** out) {
  return shim::guarded([&] {
    *out = new ShimStore{c10::make_intrusive<c10d::TCPStore>(host, options(port, timeout_ms))};
  });
}

void c10d_store_interrupt(ShimStore* store) {
  *store->interrupted = true;
}

void c10d_store_free(ShimStore* store) {
  shim::swallowed([&] { delete store; });
}
