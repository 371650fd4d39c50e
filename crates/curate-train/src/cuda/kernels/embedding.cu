// Lookup of tokens and places, and its backward pass without atomics.

/// x = embedding[token] (+ position[place]); fp32. Grid: rows. tokens, places [N], embedding [V, C], position [T, C] or null.
extern "C" __global__ void embedding_forward(float* x, const int* tokens, const int* places, const float* embedding,
                                             const float* position, int channels) {
    long long row = (long long)blockIdx.x * channels;
    const float* token = embedding + (long long)tokens[blockIdx.x] * channels;
    const float* place = position + (long long)places[blockIdx.x] * channels;
    for (int c = 4 * threadIdx.x; c < channels; c += 4 * blockDim.x) {
        quad value = load_quad(token + c);
        if (position) {
            quad more = load_quad(place + c);
            for (int i = 0; i < 4; i++) value.at[i] += more.at[i];
        }
        store_quad(x + row + c, value);
    }
}

#define GATHER_WARPS 8

/// Adds to the gradient of each token that occurs, or each place, the gradients of its rows.
///
/// The host has sorted the rows by token: group u is token keys[u], its rows rows[starts[u]] to rows[starts[u + 1] - 1]
/// in ascending order; *groups of them. Block (x, y): every gridDim.x-th group, columns 128 y to 128 y + 127; 256 threads, of
/// which warp w sums every eighth row. dx [N, C], grad [V, C] fp32.
extern "C" __global__ void embedding_backward(float* grad, const float* dx, const int* keys, const int* starts,
                                              const int* rows, const int* groups, int channels) {
    __shared__ float shared[GATHER_WARPS][4 * WARP];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int c = 4 * (blockIdx.y * WARP + lane), column = 4 * blockIdx.y * WARP + threadIdx.x;
    for (int u = blockIdx.x; u < *groups; u += gridDim.x) {
        quad sum = {{0.0f, 0.0f, 0.0f, 0.0f}};
        if (c < channels) {
            int end = starts[u + 1];
            for (int r = starts[u] + warp; r < end; r += GATHER_WARPS) {
                quad d = load_quad(dx + (long long)rows[r] * channels + c);
                for (int i = 0; i < 4; i++) sum.at[i] += d.at[i];
            }
        }
        __syncthreads(); // the sums of the last group may still be read
        for (int i = 0; i < 4; i++) shared[warp][4 * lane + i] = sum.at[i];
        __syncthreads();
        if (threadIdx.x < 4 * WARP && column < channels) {
            float total = 0.0f;
            for (int w = 0; w < GATHER_WARPS; w++) total += shared[w][threadIdx.x];
            grad[(long long)keys[u] * channels + column] += total;
        }
    }
}
