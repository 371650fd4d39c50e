// c10d's collectives on the CPU: a TCP store, and a Gloo process group upon it.
//
// Gloo is compiled into libtorch_cpu and c10d's headers come with it, but gloo's own do not. torch's class definition
// names gloo's types only behind pointers, so the layout of all that is used here is torch's own; the headers in c10d/gloo
// declare those names and nothing of their content. The constructor, the destructor and the table of virtual functions
// are libtorch's: this file makes, reads and derives from no object of a gloo type.
#define USE_DISTRIBUTED
#define USE_C10D_GLOO
#include "shim.h"

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

struct Group {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::Backend> backend;
};

using Work = c10::intrusive_ptr<c10d::Work>;

// Begins a collective for each tensor, then waits for all, so that one is summed while the next is on the wire.
template <class F>
void each(at::Tensor *const *tensors, size_t count, F &&begin) {
  std::vector<Work> works;
  works.reserve(count);
  for (size_t i = 0; i < count; i++) {
    std::vector<at::Tensor> one{*tensors[i]};
    works.push_back(begin(one));
  }
  for (auto &work : works) work->wait();
}

}  // namespace

// Meets the other ranks at host:port and connects to each of them.
//
// `serves`: this process has the store; `listen_fd`: a socket that listens on the port, or -1. `prefix` keeps the keys of
// this group apart from those of others in the same store. `interface`: address that Gloo binds to; with nullptr
// GLOO_SOCKET_IFNAME or the machine's name decides.
extern "C" char *curate_c10d_open(const char *host, uint16_t port, int rank, int world_size, int serves, int listen_fd,
                                  const char *prefix, const char *interface, int64_t timeout_ms, Group **out) {
  return curate::guard([&] {
    const std::chrono::milliseconds timeout(timeout_ms);
    c10d::TCPStoreOptions tcp;
    tcp.port = port;
    tcp.isServer = serves != 0;
    tcp.waitWorkers = false;  // Gloo waits for all ranks when it connects them
    tcp.timeout = timeout;
    if (tcp.isServer && listen_fd >= 0) tcp.masterListenFd = listen_fd;
    c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::TCPStore>(std::string(host), tcp);
    store = c10::make_intrusive<c10d::PrefixStore>(std::string(prefix), store);

    auto options = c10d::ProcessGroupGloo::Options::create(timeout);
    options->threads = 2;  // collectives in flight
    const char *name = std::getenv("GLOO_SOCKET_IFNAME");
    options->devices.push_back(interface ? c10d::ProcessGroupGloo::createDeviceForHostname(interface)
                               : name    ? c10d::ProcessGroupGloo::createDeviceForInterface(name)
                                         : c10d::ProcessGroupGloo::createDefaultDevice());
    auto backend = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, world_size, options);
    *out = new Group{store, backend};
  });
}

// Replaces each tensor by its sum over all ranks.
extern "C" char *curate_c10d_all_reduce_sum(Group *group, at::Tensor *const *tensors, size_t count) {
  return curate::guard([&] {
    each(tensors, count, [&](std::vector<at::Tensor> &one) { return group->backend->allreduce(one); });
  });
}

// Replaces each tensor by that of rank 0.
extern "C" char *curate_c10d_broadcast(Group *group, at::Tensor *const *tensors, size_t count) {
  return curate::guard([&] {
    each(tensors, count, [&](std::vector<at::Tensor> &one) { return group->backend->broadcast(one); });
  });
}

// Waits until every rank has come here.
extern "C" char *curate_c10d_barrier(Group *group) {
  return curate::guard([&] { group->backend->barrier()->wait(); });
}

// Publishes bytes under a key of the store.
extern "C" char *curate_c10d_set(Group *group, const char *key, const uint8_t *bytes, size_t length) {
  return curate::guard([&] { group->store->set(key, std::vector<uint8_t>(bytes, bytes + length)); });
}

// Waits for the bytes of a key and copies them; another length is an error.
extern "C" char *curate_c10d_get(Group *group, const char *key, uint8_t *bytes, size_t length) {
  return curate::guard([&] {
    const auto found = group->store->get(key);
    TORCH_CHECK(found.size() == length, key, " has ", found.size(), " bytes, expected ", length);
    std::copy(found.begin(), found.end(), bytes);
  });
}

extern "C" void curate_c10d_close(Group *group) { delete group; }
