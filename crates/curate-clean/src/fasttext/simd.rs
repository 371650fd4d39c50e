//! The two inner loops, compiled for the baseline and for AVX2.
//!
//! Both are the same code, with lanes instead of a running sum and no fused multiply-add, so that every machine gets
//! the same bits.

const LANES: usize = 8;

/// The dot product of two slices of one length.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just been found to have AVX2.
        return unsafe { dot_avx2(a, b) };
    }
    dot_lanes(a, b)
}

/// Adds the `rows` of `table`, each as long as `sum`, to `sum` in their order.
pub(super) fn add_rows(sum: &mut [f32], table: &[f32], rows: &[u32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just been found to have AVX2.
        return unsafe { add_rows_avx2(sum, table, rows) };
    }
    add_rows_lanes(sum, table, rows);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn dot_avx2(a: &[f32], b: &[f32]) -> f32 {
    dot_lanes(a, b)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn add_rows_avx2(sum: &mut [f32], table: &[f32], rows: &[u32]) {
    add_rows_lanes(sum, table, rows);
}

#[inline(always)]
fn dot_lanes(a: &[f32], b: &[f32]) -> f32 {
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for i in 0..LANES {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[inline(always)]
fn add_rows_lanes(sum: &mut [f32], table: &[f32], rows: &[u32]) {
    // The sums stay in registers over all rows where the length is one of the usual small ones.
    match sum.len() {
        16 => add_rows_of::<16>(sum, table, rows),
        32 => add_rows_of::<32>(sum, table, rows),
        64 => add_rows_of::<64>(sum, table, rows),
        len => {
            for row in rows {
                let row = &table[*row as usize * len..][..len];
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
        }
    }
}

#[inline(always)]
fn add_rows_of<const N: usize>(sum: &mut [f32], table: &[f32], rows: &[u32]) {
    let table = table.as_chunks::<N>().0;
    let mut total = [0.0f32; N];
    total.copy_from_slice(sum);
    for row in rows {
        let row = &table[*row as usize];
        for i in 0..N {
            total[i] += row[i];
        }
    }
    sum.copy_from_slice(&total);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_machine_gets_the_same_bits(
            a in prop::collection::vec(-1e3f32..1e3, 0..70), rows in prop::collection::vec(0u32..3, 0..9)
        ) {
            let b: Vec<f32> = a.iter().map(|x| x * 0.7 + 1.0).collect();
            prop_assert_eq!(dot(&a, &b).to_bits(), dot_lanes(&a, &b).to_bits());
            let table: Vec<f32> = a.iter().chain(&b).chain(&a).copied().collect();
            let (mut fast, mut plain) = (a.clone(), a.clone());
            add_rows(&mut fast, &table, &rows);
            for row in &rows {
                let row = &table[*row as usize * a.len()..][..a.len()];
                plain.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
            prop_assert_eq!(fast, plain);
        }
    }
}
