// What all kernels share: the element type, wide loads, sums over a warp and a block.
//
// `element` is the type of activations and shadow weights: bf16 with ELEMENT_BF16, else fp32. Arithmetic is fp32 throughout.
// Every sum runs in an order fixed by the launch, and nothing is added atomically: the same launch gives the same bits.
// The one thing that a CPU cannot emulate is the conversion instruction below; the emulator has the same rounding.

#define INFINITY_F __int_as_float(0x7f800000)

#if ELEMENT_BF16
struct element {
    unsigned short bits;
};
#else
typedef float element;
#endif

#ifdef EMULATED
__device__ inline unsigned pair_of_bf16(float low, float high) {
    return emulated_bf16(low) | (unsigned)emulated_bf16(high) << 16;
}
#else
/// Two floats as bf16, rounded to nearest even.
__device__ inline unsigned pair_of_bf16(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
#endif

__device__ inline float low_of(unsigned pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_of(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }
__device__ inline unsigned short bf16_of(float x) { return (unsigned short)(pair_of_bf16(x, 0.0f) & 0xffffu); }

__device__ inline float load(const float* p) { return *p; }
__device__ inline void store(float* p, float x) { *p = x; }
#if ELEMENT_BF16
__device__ inline float load(const element* p) { return low_of(p->bits); }
__device__ inline void store(element* p, float x) { p->bits = bf16_of(x); }
#endif

/// Four neighbours; their address must be a multiple of four elements.
struct quad {
    float at[4];
};

__device__ inline quad load_quad(const float* p) {
    float4 v = *reinterpret_cast<const float4*>(p);
    return {{v.x, v.y, v.z, v.w}};
}

__device__ inline void store_quad(float* p, const quad& q) {
    *reinterpret_cast<float4*>(p) = make_float4(q.at[0], q.at[1], q.at[2], q.at[3]);
}

__device__ inline void store_quad_bf16(unsigned short* p, const quad& q) {
    *reinterpret_cast<uint2*>(p) = make_uint2(pair_of_bf16(q.at[0], q.at[1]), pair_of_bf16(q.at[2], q.at[3]));
}

#if ELEMENT_BF16
__device__ inline quad load_quad(const element* p) {
    uint2 v = *reinterpret_cast<const uint2*>(p);
    return {{low_of(v.x), high_of(v.x), low_of(v.y), high_of(v.y)}};
}

__device__ inline void store_quad(element* p, const quad& q) { store_quad_bf16(&p->bits, q); }
#endif

/// Elements of 16 bytes.
#if ELEMENT_BF16
#define PACK 8
#else
#define PACK 4
#endif

/// Sixteen bytes of elements; their address must be a multiple of 16.
struct pack {
    float at[PACK];
};

#if ELEMENT_BF16
__device__ inline pack load_pack(const element* p) {
    uint4 v = *reinterpret_cast<const uint4*>(p);
    return {{low_of(v.x), high_of(v.x), low_of(v.y), high_of(v.y), low_of(v.z), high_of(v.z), low_of(v.w), high_of(v.w)}};
}

__device__ inline void store_pack(element* p, const pack& q) {
    *reinterpret_cast<uint4*>(p) = make_uint4(pair_of_bf16(q.at[0], q.at[1]), pair_of_bf16(q.at[2], q.at[3]),
                                              pair_of_bf16(q.at[4], q.at[5]), pair_of_bf16(q.at[6], q.at[7]));
}
#else
__device__ inline pack load_pack(const element* p) {
    quad q = load_quad(p);
    return {{q.at[0], q.at[1], q.at[2], q.at[3]}};
}

__device__ inline void store_pack(element* p, const pack& q) {
    store_quad(p, quad{{q.at[0], q.at[1], q.at[2], q.at[3]}});
}
#endif

#define WARP 32
#define ALL_LANES 0xffffffffu

template <typename T> __device__ inline T warp_sum(T x) {
    for (int distance = WARP / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

__device__ inline float warp_max(float x) {
    for (int distance = WARP / 2; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, distance));
    return x;
}

/// The sum of every thread's `x`, in every thread. All threads of the block must call it; the block is whole warps.
template <typename T> __device__ T block_sum(T x) {
    __shared__ T parts[WARP];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    x = warp_sum(x);
    __syncthreads(); // the last call's parts may still be read
    if (lane == 0) parts[warp] = x;
    __syncthreads();
    return warp_sum(lane < warps ? parts[lane] : T(0));
}

/// As `block_sum`, the largest.
__device__ inline float block_max(float x) {
    __shared__ float parts[WARP];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    x = warp_max(x);
    __syncthreads();
    if (lane == 0) parts[warp] = x;
    __syncthreads();
    return warp_max(lane < warps ? parts[lane] : -INFINITY_F);
}
