// Queries and keys between their matrix and attention: RMSNorm of each head (QK-norm) and rotation (RoPE), both optional.
//
// A warp owns a head; a lane owns pairs (i, i + D / 2) of it, which is what a rotation needs. Rows of `in`, `out` and `d` hold
// heads side by side, D elements each; `in_stride` and `out_stride` are elements from row to row. D is even, at most 256.

#define MOST_PAIRS 4

/// Grid: any number of warps takes the N (H + K) heads, queries first. q_weight, k_weight [D], inverse [N, H + K] (null without
/// QK-norm), cosines, sines [T, D / 2] (null without RoPE), places [N]. In place if `out` is `in`.
extern "C" __global__ void heads_forward(element* out, const element* in, const float* q_weight, const float* k_weight,
                                         float* inverse, const float* cosines, const float* sines, const int* places,
                                         int rows, int query_heads, int heads, int size, int in_stride, int out_stride, float eps) {
    int lane = threadIdx.x % WARP, half = size / 2;
    int warp = (blockIdx.x * blockDim.x + threadIdx.x) / WARP, warps = gridDim.x * blockDim.x / WARP;
    for (long long h = warp; h < (long long)rows * heads; h += warps) {
        int row = h / heads, head = h % heads;
        const element* x = in + (long long)row * in_stride + head * size;
        element* y = out + (long long)row * out_stride + head * size;
        float a[MOST_PAIRS] = {}, b[MOST_PAIRS] = {}, squares = 0.0f;
#pragma unroll
        for (int p = 0; p < MOST_PAIRS; p++) {
            int i = lane + p * WARP;
            if (i >= half) continue;
            a[p] = load(x + i);
            b[p] = load(x + i + half);
            squares += a[p] * a[p] + b[p] * b[p];
        }
        if (q_weight) {
            const float* weight = head < query_heads ? q_weight : k_weight;
            float scale = 1.0f / sqrtf(warp_sum(squares) / size + eps);
            if (lane == 0) inverse[h] = scale;
#pragma unroll
            for (int p = 0; p < MOST_PAIRS; p++) {
                int i = lane + p * WARP;
                if (i >= half) continue;
                a[p] *= scale * weight[i];
                b[p] *= scale * weight[i + half];
            }
        }
#pragma unroll
        for (int p = 0; p < MOST_PAIRS; p++) {
            int i = lane + p * WARP;
            if (i >= half) continue;
            if (cosines) {
                int angle = places[row] * half + i;
                float cosine = cosines[angle], sine = sines[angle], first = a[p];
                a[p] = first * cosine - b[p] * sine;
                b[p] = b[p] * cosine + first * sine;
            }
            store(y + i, a[p]);
            store(y + i + half, b[p]);
        }
    }
}

/// Backward of `heads_forward`, in place on `d`, for the heads first to first + heads of each row: all queries or all keys.
/// With QK-norm (`weight` not null), `in` are the heads before it, and warp w writes its sum of the weight's gradient into row w
/// of `dweight` [warps, D]. `inverse` [N, all heads of it].
extern "C" __global__ void heads_backward(element* d, const element* in, const float* weight, const float* inverse,
                                          float* dweight, const float* cosines, const float* sines, const int* places,
                                          int rows, int first, int heads, int normed_heads, int size, int stride) {
    int lane = threadIdx.x % WARP, half = size / 2;
    int warp = (blockIdx.x * blockDim.x + threadIdx.x) / WARP, warps = gridDim.x * blockDim.x / WARP;
    float dw_a[MOST_PAIRS] = {}, dw_b[MOST_PAIRS] = {};
    for (long long h = warp; h < (long long)rows * heads; h += warps) {
        int row = h / heads, head = first + h % heads;
        long long at = (long long)row * stride + head * size;
        float a[MOST_PAIRS] = {}, b[MOST_PAIRS] = {};
#pragma unroll
        for (int p = 0; p < MOST_PAIRS; p++) {
            int i = lane + p * WARP;
            if (i >= half) continue;
            a[p] = load(d + at + i);
            b[p] = load(d + at + i + half);
            if (cosines) {
                int angle = places[row] * half + i;
                float cosine = cosines[angle], sine = sines[angle], turned = a[p];
                a[p] = turned * cosine + b[p] * sine;
                b[p] = b[p] * cosine - turned * sine;
            }
        }
        if (weight) {
            float scale = inverse[(long long)row * normed_heads + head], sum = 0.0f;
            float x[MOST_PAIRS] = {}, y[MOST_PAIRS] = {};
#pragma unroll
            for (int p = 0; p < MOST_PAIRS; p++) {
                int i = lane + p * WARP;
                if (i >= half) continue;
                x[p] = load(in + at + i) * scale;
                y[p] = load(in + at + i + half) * scale;
                dw_a[p] += a[p] * x[p];
                dw_b[p] += b[p] * y[p];
                a[p] *= weight[i];
                b[p] *= weight[i + half];
                sum += a[p] * x[p] + b[p] * y[p];
            }
            float mean = warp_sum(sum) / size;
#pragma unroll
            for (int p = 0; p < MOST_PAIRS; p++) {
                a[p] = scale * (a[p] - x[p] * mean);
                b[p] = scale * (b[p] - y[p] * mean);
            }
        }
#pragma unroll
        for (int p = 0; p < MOST_PAIRS; p++) {
            int i = lane + p * WARP;
            if (i >= half) continue;
            store(d + at + i, a[p]);
            store(d + at + i + half, b[p]);
        }
    }
    if (weight) {
#pragma unroll
        for (int p = 0; p < MOST_PAIRS; p++) {
            int i = lane + p * WARP;
            if (i >= half) continue;
            dweight[(long long)warp * size + i] = dw_a[p];
            dweight[(long long)warp * size + i + half] = dw_b[p];
        }
    }
}
