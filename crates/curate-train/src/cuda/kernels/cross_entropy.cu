// Cross-entropy and its gradient in one kernel, in place on the logits, and the sum of the losses.

/// Turns each row of logits into the gradient of `scale` × its cross-entropy and writes the cross-entropy in nats.
///
/// Logits from `vocab` up to `stride` are padding: they count for nothing and their gradient is 0. A negative target is not
/// scored: gradient and loss are 0. The row is read twice and written once; sum and maximum come from one pass (Milakov,
/// Gimelshein 2018, "Online normalizer calculation for softmax"). Grid: rows. logits [N, stride], targets [N].
extern "C" __global__ void cross_entropy(element* logits, float* losses, const int* targets, const float* scale, int vocab,
                                         int stride) {
    element* row = logits + (long long)blockIdx.x * stride;
    int target = targets[blockIdx.x];
    int packs = stride % PACK == 0 ? vocab / PACK : 0; // otherwise rows are not aligned to 16 bytes
    if (target < 0) {
        for (int i = threadIdx.x; i < packs; i += blockDim.x) store_pack(row + i * PACK, pack{});
        for (int i = packs * PACK + threadIdx.x; i < stride; i += blockDim.x) store(row + i, 0.0f);
        if (threadIdx.x == 0) losses[blockIdx.x] = 0.0f;
        return;
    }
    float at_target = load(row + target); // before anybody overwrites it: the sums below wait for all
    float largest = -INFINITY_F, sum = 0.0f;
    for (int i = threadIdx.x; i < packs; i += blockDim.x) {
        pack x = load_pack(row + i * PACK);
        float above = largest;
        for (int k = 0; k < PACK; k++) above = fmaxf(above, x.at[k]);
        sum *= expf(largest - above);
        largest = above;
        for (int k = 0; k < PACK; k++) sum += expf(x.at[k] - largest);
    }
    for (int i = packs * PACK + threadIdx.x; i < vocab; i += blockDim.x) {
        float x = load(row + i), above = fmaxf(largest, x);
        sum = sum * expf(largest - above) + expf(x - above);
        largest = above;
    }
    float maximum = block_max(largest);
    sum = block_sum(sum * expf(largest - maximum));
    float factor = *scale / sum;
    for (int i = threadIdx.x; i < packs; i += blockDim.x) {
        pack x = load_pack(row + i * PACK);
        for (int k = 0; k < PACK; k++) {
            x.at[k] = expf(x.at[k] - maximum) * factor;
            if (i * PACK + k == target) x.at[k] -= *scale;
        }
        store_pack(row + i * PACK, x);
    }
    for (int i = packs * PACK + threadIdx.x; i < stride; i += blockDim.x) {
        float x = i < vocab ? expf(load(row + i) - maximum) * factor : 0.0f;
        store(row + i, i == target ? x - *scale : x);
    }
    if (threadIdx.x == 0) losses[blockIdx.x] = logf(sum) - (at_target - maximum);
}

/// total (+)= the sum of the losses, in fp64. One block.
extern "C" __global__ void sum_losses(double* total, const float* losses, int rows, int fresh) {
    double sum = 0.0;
    for (int i = threadIdx.x; i < rows; i += blockDim.x) sum += losses[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *total = (fresh ? 0.0 : *total) + sum;
}
