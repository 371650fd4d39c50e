// Residual addition with LayerNorm or RMSNorm, forward and backward, and column sums.
//
// A block owns a row: QUADS groups of four columns a thread, held in registers between the sums.

/// x_out = x + branch (branch may be null, then x_out may be null too); out = norm(x_out) · weight (+ bias).
/// stats: (mean, 1 / deviation) of each row; RMSNorm (`centred` 0) has mean 0.
/// Grid: rows. x, x_out [N, C] fp32, branch, out [N, C], weight, bias [C] fp32, stats [N, 2].
template <int QUADS>
__device__ void norm_forward(const float* x, const element* branch, float* x_out, const float* weight, const float* bias,
                             element* out, float* stats, int channels, int centred, float eps) {
    long long row = (long long)blockIdx.x * channels;
    quad value[QUADS];
    float sum = 0.0f;
#pragma unroll
    for (int q = 0; q < QUADS; q++) {
        int c = 4 * (threadIdx.x + q * blockDim.x);
        if (c >= channels) continue;
        value[q] = load_quad(x + row + c);
        if (branch) {
            quad more = load_quad(branch + row + c);
            for (int i = 0; i < 4; i++) value[q].at[i] += more.at[i];
            store_quad(x_out + row + c, value[q]);
        }
        for (int i = 0; i < 4; i++) sum += value[q].at[i];
    }
    float mean = centred ? block_sum(sum) / channels : 0.0f;
    float squares = 0.0f;
#pragma unroll
    for (int q = 0; q < QUADS; q++) {
        int c = 4 * (threadIdx.x + q * blockDim.x);
        if (c >= channels) continue;
        for (int i = 0; i < 4; i++) squares += (value[q].at[i] - mean) * (value[q].at[i] - mean);
    }
    float inverse = 1.0f / sqrtf(block_sum(squares) / channels + eps);
#pragma unroll
    for (int q = 0; q < QUADS; q++) {
        int c = 4 * (threadIdx.x + q * blockDim.x);
        if (c >= channels) continue;
        quad w = load_quad(weight + c);
        for (int i = 0; i < 4; i++) value[q].at[i] = (value[q].at[i] - mean) * inverse * w.at[i];
        if (bias) {
            quad b = load_quad(bias + c);
            for (int i = 0; i < 4; i++) value[q].at[i] += b.at[i];
        }
        store_quad(out + row + c, value[q]);
    }
    if (threadIdx.x == 0) {
        stats[2 * blockIdx.x] = mean;
        stats[2 * blockIdx.x + 1] = inverse;
    }
}

/// The gradient of the norm's input, added to dx (`add`) or put there; dx_out (may be null) is dx as elements.
/// A block takes every gridDim-th row and sums the gradients of weight and bias over its rows into its own row of
/// `dweight` and `dbias` (null for RMSNorm): [blocks, C] fp32, to be summed by `column_sums_add`.
/// Grid: any number of blocks. dx, x [N, C] fp32, dy, dx_out [N, C].
template <int QUADS>
__device__ void norm_backward(float* dx, element* dx_out, const element* dy, const float* x, const float* weight,
                              const float* stats, float* dweight, float* dbias, int rows, int channels, int centred,
                              int add) {
    quad dw[QUADS], db[QUADS];
#pragma unroll
    for (int q = 0; q < QUADS; q++) dw[q] = db[q] = quad{{0.0f, 0.0f, 0.0f, 0.0f}};
    for (int r = blockIdx.x; r < rows; r += gridDim.x) {
        long long row = (long long)r * channels;
        float mean = stats[2 * r], inverse = stats[2 * r + 1];
        float sum_g = 0.0f, sum_gx = 0.0f;
#pragma unroll
        for (int q = 0; q < QUADS; q++) {
            int c = 4 * (threadIdx.x + q * blockDim.x);
            if (c >= channels) continue;
            quad g = load_quad(dy + row + c), v = load_quad(x + row + c), w = load_quad(weight + c);
            for (int i = 0; i < 4; i++) {
                float normed = (v.at[i] - mean) * inverse;
                sum_g += g.at[i] * w.at[i];
                sum_gx += g.at[i] * w.at[i] * normed;
                dw[q].at[i] += g.at[i] * normed;
                db[q].at[i] += g.at[i];
            }
        }
        float mean_g = centred ? block_sum(sum_g) / channels : 0.0f;
        float mean_gx = block_sum(sum_gx) / channels;
#pragma unroll
        for (int q = 0; q < QUADS; q++) {
            int c = 4 * (threadIdx.x + q * blockDim.x);
            if (c >= channels) continue;
            // Read again: these are in the cache, and registers are dearer.
            quad g = load_quad(dy + row + c), v = load_quad(x + row + c), w = load_quad(weight + c);
            quad d = add ? load_quad(dx + row + c) : quad{{0.0f, 0.0f, 0.0f, 0.0f}};
            for (int i = 0; i < 4; i++) {
                float normed = (v.at[i] - mean) * inverse;
                d.at[i] += inverse * (g.at[i] * w.at[i] - mean_g - normed * mean_gx);
            }
            store_quad(dx + row + c, d);
            if (dx_out) store_quad(dx_out + row + c, d);
        }
    }
    long long part = (long long)blockIdx.x * channels;
#pragma unroll
    for (int q = 0; q < QUADS; q++) {
        int c = 4 * (threadIdx.x + q * blockDim.x);
        if (c >= channels) continue;
        store_quad(dweight + part + c, dw[q]);
        if (dbias) store_quad(dbias + part + c, db[q]);
    }
}

#define NORM(QUADS)                                                                                                    \
    extern "C" __global__ void norm_forward_##QUADS(const float* x, const element* branch, float* x_out,               \
                                                    const float* weight, const float* bias, element* out, float* stats, \
                                                    int channels, int centred, float eps) {                            \
        norm_forward<QUADS>(x, branch, x_out, weight, bias, out, stats, channels, centred, eps);                       \
    }                                                                                                                  \
    extern "C" __global__ void norm_backward_##QUADS(                                                                  \
        float* dx, element* dx_out, const element* dy, const float* x, const float* weight, const float* stats,        \
        float* dweight, float* dbias, int rows, int channels, int centred, int add) {                                  \
        norm_backward<QUADS>(dx, dx_out, dy, x, weight, stats, dweight, dbias, rows, channels, centred, add);          \
    }

NORM(1)
NORM(2)
NORM(4)
NORM(8)

#define SUM_WARPS 8

/// First pass of the sum of the rows of dy [N, O]: block (x, y) sums every gridDim.y-th group of rows for 32 packs of columns
/// into row y of `parts` [gridDim.y, O] fp32. Block: 256 threads. O is a multiple of PACK.
extern "C" __global__ void column_sums(float* parts, const element* dy, int rows, int columns) {
    __shared__ float shared[SUM_WARPS][WARP * PACK];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int c = (blockIdx.x * WARP + lane) * PACK;
    float sum[PACK] = {};
    if (c < columns) {
        for (int r = blockIdx.y * SUM_WARPS + warp; r < rows; r += gridDim.y * SUM_WARPS) {
            pack v = load_pack(dy + (long long)r * columns + c);
            for (int i = 0; i < PACK; i++) sum[i] += v.at[i];
        }
    }
    for (int i = 0; i < PACK; i++) shared[warp][lane * PACK + i] = sum[i];
    __syncthreads();
    int column = blockIdx.x * WARP * PACK + threadIdx.x;
    if (threadIdx.x < WARP * PACK && column < columns) {
        float total = 0.0f;
        for (int w = 0; w < SUM_WARPS; w++) total += shared[w][threadIdx.x];
        parts[(long long)blockIdx.y * columns + column] = total;
    }
}

/// Second pass: out (+)= the sum of the rows of `parts` [R, O]. Block: 1024 threads for 32 columns; `fresh` replaces.
extern "C" __global__ void column_sums_add(float* out, const float* parts, int rows, int columns, int fresh) {
    __shared__ float shared[WARP][WARP + 1];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int c = blockIdx.x * WARP + lane;
    float sum = 0.0f;
    if (c < columns)
        for (int r = warp; r < rows; r += WARP) sum += parts[(long long)r * columns + c];
    shared[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && c < columns) {
        float total = fresh ? 0.0f : out[c];
        for (int w = 0; w < WARP; w++) total += shared[w][lane];
        out[c] = total;
    }
}
