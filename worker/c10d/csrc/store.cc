// TCPStore behind the C interface.
#include "status.h"
#include "store.h"

#include <torch/headeronly/version.h>

#include <unistd.h>

namespace {

c10d::TCPStoreOptions options(uint16_t port, int64_t timeout_ms) {
  c10d::TCPStoreOptions options;
  options.port = port;
  options.waitWorkers = false;
  options.timeout = std::chrono::milliseconds(timeout_ms);
  return options;
}

} // namespace

void c10d_string_free(char* string) {
  std::free(string);
}

const char* c10d_libtorch_version() {
  return TORCH_VERSION;
}

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
