// torch's CUDA side: attention forward with all that its backward wants, CUDA graphs, the current stream, memory statistics,
// copies that do not wait.
//
// Compiled as a shared object of its own whose torch symbols stay undefined; the program opens it after libtorch_cuda.so, which
// has them. So neither a CUDA toolkit nor a GPU is needed to build, and a run on the CPU never loads it.
#include "../cc/shim.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <optional>
#include <tuple>

using curate::guard;

namespace {

enum Kernel { FLASH = 0, CUDNN = 1, EFFICIENT = 2 };

// What the backward pass of attention needs.
struct Attended {
  Kernel kernel = FLASH;
  bool documents = false;
  at::Tensor out, log_sum_exp, starts_q, starts_k, seed, offset;
  int64_t longest_q = 0, longest_k = 0;
};

struct Graph {
  at::cuda::CUDAGraph graph;
  std::optional<c10::cuda::CUDAStreamGuard> guard;
};

}  // namespace

extern "C" {

void curate_cuda_free_message(char *message) {
  if (message != curate::out_of_memory) free(message);
}

// Makes `device` the one that this thread's launches go to.
char *curate_cuda_use(int device) {
  return guard([&] { c10::cuda::set_device(static_cast<c10::DeviceIndex>(device)); });
}

// The stream that torch launches on, as a CUstream.
char *curate_cuda_stream(int device, void **stream) {
  return guard([&] { *stream = c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device)).stream(); });
}

// Causal attention without dropout. q [B, H, T, D], k and v [B, K, T, D] (K = H but for FLASH), the last dimension without
// gaps; out [B, H, T, D].
//
// With `starts` (int32, [documents + 1], from 0 to N; FLASH only) q, k, v and out are [N, H or K, D] instead: the documents
// lie one after another and see themselves alone; `longest` is the length of the longest.
char *curate_cuda_attention(int kernel, at::Tensor *q, at::Tensor *k, at::Tensor *v, at::Tensor *starts, int64_t longest,
                            Attended **saved, at::Tensor **out) {
  return guard([&] {
    at::NoGradGuard no_grad;
    auto s = std::make_unique<Attended>();
    s->kernel = static_cast<Kernel>(kernel);
    if (starts) {
      TORCH_CHECK(kernel == FLASH, "documents need the flash kernel");
      s->documents = true;
      s->starts_q = s->starts_k = *starts;
      s->longest_q = s->longest_k = longest;
      std::tie(s->out, s->log_sum_exp, s->seed, s->offset, std::ignore) =
          at::_flash_attention_forward(*q, *k, *v, *starts, *starts, longest, longest, 0.0, true, false);
    } else if (kernel == EFFICIENT) {
      std::tie(s->out, s->log_sum_exp, s->seed, s->offset) =
          at::_scaled_dot_product_efficient_attention(*q, *k, *v, std::nullopt, true, 0.0, true);
    } else {
      c10::SymInt longest_q, longest_k;
      auto all = std::tie(s->out, s->log_sum_exp, s->starts_q, s->starts_k, longest_q, longest_k, s->seed, s->offset,
                          std::ignore);
      if (kernel == FLASH)
        all = at::_scaled_dot_product_flash_attention(*q, *k, *v, 0.0, true, false);
      else
        all = at::_scaled_dot_product_cudnn_attention(*q, *k, *v, std::nullopt, true, 0.0, true, false);
      s->longest_q = longest_q.guard_int(__FILE__, __LINE__);
      s->longest_k = longest_k.guard_int(__FILE__, __LINE__);
    }
    *out = new at::Tensor(s->out);
    *saved = s.release();
  });
}

// The gradients of q, k and v, in their shapes.
char *curate_cuda_attention_backward(Attended *s, at::Tensor *dout, at::Tensor *q, at::Tensor *k, at::Tensor *v,
                                     at::Tensor **dq, at::Tensor **dk, at::Tensor **dv) {
  return guard([&] {
    at::NoGradGuard no_grad;
    at::Tensor a, b, c;
    if (s->documents)
      std::tie(a, b, c) =
          at::_flash_attention_backward(*dout, *q, *k, *v, s->out, s->log_sum_exp, s->starts_q, s->starts_k,
                                        s->longest_q, s->longest_k, 0.0, true, s->seed, s->offset);
    else if (s->kernel == FLASH)
      std::tie(a, b, c) = at::_scaled_dot_product_flash_attention_backward(
          *dout, *q, *k, *v, s->out, s->log_sum_exp, s->starts_q, s->starts_k, s->longest_q, s->longest_k, 0.0, true,
          s->seed, s->offset);
    else if (s->kernel == CUDNN)
      std::tie(a, b, c) = at::_scaled_dot_product_cudnn_attention_backward(
          *dout, *q, *k, *v, s->out, s->log_sum_exp, s->seed, s->offset, at::Tensor(), s->starts_q, s->starts_k,
          s->longest_q, s->longest_k, 0.0, true);
    else
      std::tie(a, b, c, std::ignore) = at::_scaled_dot_product_efficient_attention_backward(
          *dout, *q, *k, *v, at::Tensor(), s->out, s->log_sum_exp, s->seed, s->offset, 0.0,
          std::array<bool, 4>{true, true, true, false}, true);
    *dq = new at::Tensor(std::move(a));
    *dk = new at::Tensor(std::move(b));
    *dv = new at::Tensor(std::move(c));
  });
}

void curate_cuda_attention_free(Attended *saved) { delete saved; }

// Begins to record what this thread launches on the device, on a stream of its own.
char *curate_cuda_graph_begin(int device, Graph **graph) {
  return guard([&] {
    auto index = static_cast<c10::DeviceIndex>(device);
    auto g = std::make_unique<Graph>();
    c10::cuda::getCurrentCUDAStream(index).synchronize();
    g->guard.emplace(c10::cuda::getStreamFromPool(true, index));
    // Other threads of the process may talk to CUDA meanwhile.
    g->graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    *graph = g.release();
  });
}

// Ends the recording. The graph can be replayed if this succeeds, and must be freed in any case.
char *curate_cuda_graph_end(Graph *graph) {
  char *message = guard([&] { graph->graph.capture_end(); });
  char *other = guard([&] { graph->guard.reset(); });
  if (!message) return other;
  curate_cuda_free_message(other);
  return message;
}

// Puts the recorded work on the current stream.
char *curate_cuda_graph_replay(Graph *graph) {
  return guard([&] { graph->graph.replay(); });
}

void curate_cuda_graph_free(Graph *graph) {
  curate_cuda_free_message(guard([&] { delete graph; }));
}

// Copies without waiting, if `from` is pinned host memory: it must keep its values until the stream has come by.
char *curate_cuda_copy(at::Tensor *to, at::Tensor *from) {
  return guard([&] {
    at::NoGradGuard no_grad;
    to->copy_(*from, /*non_blocking=*/true);
  });
}

// Bytes of the allocator: in tensors now, at most since the last reset, and held from the device.
char *curate_cuda_memory(int device, int64_t *current, int64_t *peak, int64_t *reserved) {
  return guard([&] {
    auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(static_cast<c10::DeviceIndex>(device));
    *current = stats.allocated_bytes[0].current;
    *peak = stats.allocated_bytes[0].peak;
    *reserved = stats.reserved_bytes[0].current;
  });
}

char *curate_cuda_reset_peak(int device) {
  return guard([&] { c10::cuda::CUDACachingAllocator::resetPeakStats(static_cast<c10::DeviceIndex>(device)); });
}

// Gives memory that no tensor uses back to the device.
char *curate_cuda_empty_cache() {
  return guard([] { c10::cuda::CUDACachingAllocator::emptyCache(); });
}

// Makes torch choose algorithms that give the same bits every time, or fail.
char *curate_cuda_deterministic(int on) {
  return guard([&] { at::globalContext().setDeterministicAlgorithms(on != 0, /*warn_only=*/false); });
}
}
