// Global norm of all gradients and AdamW over all parameters: one launch each, whatever the number of tensors.
//
// `table` has seven numbers for each parameter: the addresses of weight, gradient, first and second moment and bf16 shadow (0 =
// none), the number of elements, and whether it decays. A block works on one piece of PIECE elements: `pieces` has (parameter,
// first element).

#define PIECE 16384

struct parameter {
    float *weight, *grad, *first, *second;
    unsigned short* shadow;
    long long length, decays;
};

__device__ inline parameter parameter_of(const long long* table, long long index) {
    const long long* p = table + 7 * index;
    return {reinterpret_cast<float*>(p[0]), reinterpret_cast<float*>(p[1]),          reinterpret_cast<float*>(p[2]),
            reinterpret_cast<float*>(p[3]), reinterpret_cast<unsigned short*>(p[4]), p[5], p[6]};
}

/// First pass: the sum of the squares of each piece of the gradients. Grid: pieces; sums [pieces].
extern "C" __global__ void square_sums(double* sums, const long long* table, const long long* pieces) {
    parameter p = parameter_of(table, pieces[2 * blockIdx.x]);
    long long start = pieces[2 * blockIdx.x + 1];
    int count = p.length - start < PIECE ? p.length - start : PIECE;
    const float* grad = p.grad + start;
    float sum = 0.0f;
    for (int i = 4 * threadIdx.x; i < count / 4 * 4; i += 4 * blockDim.x) {
        quad g = load_quad(grad + i);
        for (int k = 0; k < 4; k++) sum += g.at[k] * g.at[k];
    }
    for (int i = count / 4 * 4 + threadIdx.x; i < count; i += blockDim.x) sum += grad[i] * grad[i];
    double total = block_sum((double)sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

/// Second pass: the root of the sum. One block.
extern "C" __global__ void root_of_sum(double* norm, const double* sums, int count) {
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += sums[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *norm = sqrt(sum);
}

__device__ inline void update(float& w, float g, float& m, float& v, float scale, float beta1, float beta2, float eps,
                              float rate, float inverse_root_bias2, float decay) {
    g *= scale;
    m = beta1 * m + (1.0f - beta1) * g;
    v = beta2 * v + (1.0f - beta2) * g * g;
    w = decay * w - rate * m / (sqrtf(v) * inverse_root_bias2 + eps);
}

/// One AdamW update. scale: factor of the gradients (clipping); rate: lr / (1 - beta1^t); inverse_root_bias2:
/// 1 / sqrt(1 - beta2^t); decay: 1 - lr × weight decay, for parameters that decay. Grid: pieces.
extern "C" __global__ void adamw(const long long* table, const long long* pieces, float scale, float beta1, float beta2,
                                 float eps, float rate, float inverse_root_bias2, float decay) {
    long long start = pieces[2 * blockIdx.x + 1];
    parameter p = parameter_of(table, pieces[2 * blockIdx.x]);
    if (!p.first) return; // another optimiser's
    if (!p.decays) decay = 1.0f;
    int count = p.length - start < PIECE ? p.length - start : PIECE;
    for (int i = 4 * threadIdx.x; i < count / 4 * 4; i += 4 * blockDim.x) {
        quad w = load_quad(p.weight + start + i), g = load_quad(p.grad + start + i);
        quad m = load_quad(p.first + start + i), v = load_quad(p.second + start + i);
        for (int k = 0; k < 4; k++)
            update(w.at[k], g.at[k], m.at[k], v.at[k], scale, beta1, beta2, eps, rate, inverse_root_bias2, decay);
        store_quad(p.weight + start + i, w);
        store_quad(p.first + start + i, m);
        store_quad(p.second + start + i, v);
        if (p.shadow) store_quad_bf16(p.shadow + start + i, w);
    }
    for (long long i = start + count / 4 * 4 + threadIdx.x; i < start + count; i += blockDim.x) {
        update(p.weight[i], p.grad[i], p.first[i], p.second[i], scale, beta1, beta2, eps, rate, inverse_root_bias2, decay);
        if (p.shadow) p.shadow[i] = bf16_of(p.weight[i]);
    }
}
