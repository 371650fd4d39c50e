// Matrix products through oneDNN, in fp32 and bf16.
//
// libtorch itself sends fp32 products to MKL, which takes slow kernels on processors that are not Intel's.
#include "shim.h"

namespace at::native {
// Exported by libtorch_cpu, but its header (ATen/native/mkldnn/Matmul.h) is not shipped:
// result = alpha * mat1 · mat2 + beta * result, for contiguous matrices and transposed views of such.
void mkldnn_matmul(const Tensor &mat1, const Tensor &mat2, const Tensor &result, float beta, float alpha);
}  // namespace at::native

// out = a · b, or out += a · b with `accumulate`.
extern "C" char *curate_matmul(const at::Tensor *a, const at::Tensor *b, at::Tensor *out, int accumulate) {
  return curate::guard([&] { at::native::mkldnn_matmul(*a, *b, *out, accumulate ? 1.0f : 0.0f, 1.0f); });
}
