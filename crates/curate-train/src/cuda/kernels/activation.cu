// GELU (tanh form), ReLU² and SwiGLU, forward and backward.
//
// up [N, F] (SwiGLU: gate and value, [N, 2 F]), active and its gradient [N, F]. The backward pass overwrites `up` with
// its gradient. A thread takes a pack at a time; F is a multiple of PACK. Grid: any; `packs` counts those of [N, F].

/// 2 sqrt(2 / pi): gelu(x) = x · sigmoid(GELU_SLOPE (x + GELU_CUBE x³)), as (1 + tanh u) / 2 = sigmoid(2 u).
#define GELU_SLOPE 1.5957691216057308f
#define GELU_CUBE 0.044715f

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__device__ inline float gelu(float x) { return x * sigmoid(GELU_SLOPE * (x + GELU_CUBE * x * x * x)); }

__device__ inline float gelu_slope(float x) {
    float s = sigmoid(GELU_SLOPE * (x + GELU_CUBE * x * x * x));
    return s + x * s * (1.0f - s) * GELU_SLOPE * (1.0f + 3.0f * GELU_CUBE * x * x);
}

__device__ inline float relu2(float x) { return x > 0.0f ? x * x : 0.0f; }

__device__ inline float relu2_slope(float x) { return x > 0.0f ? 2.0f * x : 0.0f; }

#define EACH_PACK(i) \
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < packs; i += (long long)gridDim.x * blockDim.x)

#define POINTWISE(name)                                                                                    \
    extern "C" __global__ void name##_forward(element* active, const element* up, long long packs) {       \
        EACH_PACK(i) {                                                                                     \
            pack x = load_pack(up + i * PACK);                                                             \
            for (int k = 0; k < PACK; k++) x.at[k] = name(x.at[k]);                                        \
            store_pack(active + i * PACK, x);                                                              \
        }                                                                                                  \
    }                                                                                                      \
    extern "C" __global__ void name##_backward(element* up, const element* dactive, long long packs) {     \
        EACH_PACK(i) {                                                                                     \
            pack x = load_pack(up + i * PACK), d = load_pack(dactive + i * PACK);                          \
            for (int k = 0; k < PACK; k++) x.at[k] = name##_slope(x.at[k]) * d.at[k];                      \
            store_pack(up + i * PACK, x);                                                                  \
        }                                                                                                  \
    }

POINTWISE(gelu)
POINTWISE(relu2)

/// active = gate · sigmoid(gate) · value.
extern "C" __global__ void swiglu_forward(element* active, const element* up, long long packs, int hidden) {
    EACH_PACK(i) {
        long long row = i * PACK / hidden, c = i * PACK % hidden;
        const element* gate = up + row * 2 * hidden + c;
        pack g = load_pack(gate), v = load_pack(gate + hidden);
        for (int k = 0; k < PACK; k++) v.at[k] *= g.at[k] * sigmoid(g.at[k]);
        store_pack(active + i * PACK, v);
    }
}

extern "C" __global__ void swiglu_backward(element* up, const element* dactive, long long packs, int hidden) {
    EACH_PACK(i) {
        long long row = i * PACK / hidden, c = i * PACK % hidden;
        element* gate = up + row * 2 * hidden + c;
        pack g = load_pack(gate), v = load_pack(gate + hidden), d = load_pack(dactive + i * PACK);
        for (int k = 0; k < PACK; k++) {
            float s = sigmoid(g.at[k]);
            float dgate = d.at[k] * v.at[k] * s * (1.0f + g.at[k] * (1.0f - s));
            v.at[k] = d.at[k] * g.at[k] * s;
            g.at[k] = dgate;
        }
        store_pack(gate, g);
        store_pack(gate + hidden, v);
    }
}
