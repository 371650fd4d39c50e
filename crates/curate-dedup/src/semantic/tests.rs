use proptest::prelude::*;

use super::*;

/// Unit rows in random directions, then some of them again with noise of this size.
fn planted(seed: u64, originals: usize, copies: usize, dim: usize, noise: f32) -> (Vec<f32>, usize) {
    let mut state = seed.wrapping_add(1);
    let mut next = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut values: Vec<f32> = (0..originals * dim).map(|_| next()).collect();
    for copy in 0..copies {
        let from = (copy * 7 % originals) * dim;
        for i in 0..dim {
            values.push(values[from + i] + noise * next());
        }
    }
    (values, originals + copies)
}

/// Keep-first by the definition, in double precision and without scaling.
fn brute_force(values: &[f32], dim: usize, threshold: f64) -> Vec<(u32, u32)> {
    let rows: Vec<&[f32]> = values.chunks_exact(dim).collect();
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum() };
    let (mut kept, mut removed) = (Vec::<usize>::new(), Vec::new());
    for i in 0..rows.len() {
        let mut best: Option<(usize, f64)> = None;
        for &j in &kept {
            let cosine = dot(rows[i], rows[j]) / (dot(rows[i], rows[i]) * dot(rows[j], rows[j])).sqrt();
            if cosine >= threshold && best.is_none_or(|(_, other)| cosine > other) {
                best = Some((j, cosine));
            }
        }
        match best {
            Some((j, _)) => removed.push((i as u32, j as u32)),
            None => kept.push(i),
        }
    }
    removed
}

fn run(values: &[f32], dim: usize, options: &SemanticOptions, threads: usize) -> Result<SemanticResult> {
    semantic_dedup(&EmbeddingSlice::new(values, values.len() / dim, dim)?, options, threads, &|| true)
}

fn options(clusters: usize, threshold: f64) -> SemanticOptions {
    SemanticOptions { clusters: Some(clusters), threshold, ..SemanticOptions::default() }
}

fn pairs(result: &SemanticResult) -> Vec<(u32, u32)> {
    result.removed.iter().map(|removal| (removal.row, removal.dup_of)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn one_cluster_is_brute_force(
        seed in any::<u64>(), originals in 1usize..40, copies in 0usize..40, dim in 2usize..40, threshold in 0.2f64..0.99
    ) {
        let (values, rows) = planted(seed, originals, copies, dim, 0.2);
        let result = run(&values, dim, &options(1, threshold), 2).unwrap();
        prop_assert_eq!(pairs(&result), brute_force(&values, dim, threshold));
        prop_assert_eq!(result.summary.kept + result.summary.removed, rows as u64);
    }

    #[test]
    fn small_blocks_and_little_memory_change_nothing(
        seed in any::<u64>(), block in 1usize..20, resident in 0usize..20
    ) {
        let (values, rows) = planted(seed, 30, 30, 8, 0.2);
        let slice = EmbeddingSlice::new(&values, rows, 8).unwrap();
        let members = Members::new(&vec![0; rows], 1);
        prop_assert_eq!(
            star::removals_with(&slice, &members, 0.7, block, resident, &|| true).unwrap(),
            star::removals(&slice, &members, 0.7, &|| true).unwrap()
        );
    }
}

#[test]
fn the_answer_is_the_same_for_any_number_of_threads() {
    let (values, _) = planted(3, 3000, 1500, 24, 0.1);
    for clusters in [1, 40] {
        let one = run(&values, 24, &options(clusters, 0.9), 1).unwrap();
        assert!(one.summary.removed > 1000, "{:?}", one.summary);
        for threads in [2, 4] {
            assert_eq!(run(&values, 24, &options(clusters, 0.9), threads).unwrap(), one);
        }
    }
}

#[test]
fn every_removal_names_a_kept_row_before_it() {
    let (values, _) = planted(4, 1000, 1000, 16, 0.3);
    let result = run(&values, 16, &options(20, 0.8), 2).unwrap();
    let removed: std::collections::BTreeSet<u32> = result.removed.iter().map(|removal| removal.row).collect();
    for removal in &result.removed {
        assert!(removal.dup_of < removal.row && !removed.contains(&removal.dup_of), "{removal:?}");
        assert!((0.8..=1.0).contains(&removal.cosine), "{removal:?}");
    }
}

#[test]
fn clusters_lose_few_of_the_planted_duplicates() {
    let (values, _) = planted(5, 4000, 2000, 32, 0.05);
    let exact = run(&values, 32, &options(1, 0.95), 2).unwrap().summary.removed;
    let clustered = run(&values, 32, &options(50, 0.95), 2).unwrap().summary.removed;
    assert_eq!(exact, 2000);
    // Random directions have no clusters, so that many rows are near a border: this is the hard case.
    assert!(clustered >= 1800 && clustered <= exact, "{clustered} of {exact}");
}

#[test]
fn equal_rows_have_cosine_1_and_rows_of_zeros_stay() {
    let values =
        [0.1, 0.2, 0.3, 0.0, 0.0, 0.0, 0.1, 0.2, 0.3, 0.0, 0.0, 0.0, -0.1, -0.2, -0.3, 1e38, 2e38, 3e38];
    for clusters in [1, 2, 5] {
        let result = run(&values, 3, &options(clusters, 1.0), 1).unwrap();
        assert_eq!(result.removed.first(), Some(&Removal { row: 2, dup_of: 0, cosine: 1.0 }));
        assert_eq!(result.summary.zero_rows, 2);
    }
    assert_eq!(run(&[0.0; 30], 3, &options(4, 0.5), 1).unwrap().removed, []);
    assert_eq!(run(&[], 3, &options(4, 0.5), 1).unwrap().removed, []);
    assert_eq!(run(&[1.0; 3000], 3, &options(4, 1.0), 1).unwrap().summary.removed, 999);
}

#[test]
fn chains_do_not_close() {
    // Neighbours are 30 degrees apart: cosine 0.866; the ends are 60: 0.5.
    let values = [1.0, 0.0, 0.866_025_4, 0.5, 0.5, 0.866_025_4];
    assert_eq!(pairs(&run(&values, 2, &options(1, 0.8), 1).unwrap()), [(1, 0)]);
}

#[test]
fn a_bad_number_is_named_by_its_row() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut values = vec![1.0; 4 * 5000];
        values[4 * 4321 + 2] = bad;
        values[4 * 4999] = bad;
        for clusters in [1, 8] {
            let error = run(&values, 4, &options(clusters, 0.9), 4).unwrap_err();
            assert!(matches!(error, SemanticError::NotFinite { row: 4321 }), "{error}");
        }
    }
}

#[test]
fn wrong_shapes_and_options_are_refused() {
    assert!(matches!(
        EmbeddingSlice::new(&[0.0; 7], 2, 3),
        Err(SemanticError::Shape { values: 7, rows: 2, dim: 3 })
    ));
    assert!(matches!(EmbeddingSlice::new(&[], 2, 0), Err(SemanticError::NoDimensions)));
    for threshold in [0.0, -1.0, 1.1, f64::NAN] {
        assert!(matches!(options(1, threshold).validate(), Err(SemanticError::Threshold { .. })));
    }
    assert!(matches!(options(0, 0.9).validate(), Err(SemanticError::NoClusters)));
    let few = SemanticOptions { sample: Some(10), ..options(11, 0.9) };
    assert!(matches!(few.validate(), Err(SemanticError::Sample { got: 10, clusters: 11 })));
}

#[test]
fn who_says_stop_is_heard() {
    let (values, rows) = planted(6, 3000, 0, 8, 0.1);
    let slice = EmbeddingSlice::new(&values, rows, 8).unwrap();
    for (clusters, answers) in [(1, 0), (1, 4), (20, 0), (20, 3), (20, 30)] {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let alive = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < answers;
        let error = semantic_dedup(&slice, &options(clusters, 0.9), 2, &alive).unwrap_err();
        assert!(matches!(error, SemanticError::Stopped), "{error}");
    }
}

/// What numpy says of an array that numpy wrote: see python/goldens/semantic.py.
#[test]
fn numpy_removes_the_same_rows() {
    let goldens = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens");
    let answers = std::fs::read_to_string(goldens.join("semantic.json")).unwrap();
    let answers: std::collections::BTreeMap<String, Vec<(u32, u32, f64)>> =
        serde_json::from_str(&answers).unwrap();
    let rows = NpyFile::open(&goldens.join("semantic.npy")).unwrap();
    assert_eq!((rows.rows(), rows.dim(), answers.len()), (240, 16, 3));
    for (threshold, expected) in answers {
        let options = options(1, threshold.parse().unwrap());
        let result = semantic_dedup(&rows, &options, 2, &|| true).unwrap();
        assert_eq!(result.summary.zero_rows, 3);
        let expected_pairs: Vec<_> = expected.iter().map(|(row, dup_of, _)| (*row, *dup_of)).collect();
        assert_eq!(pairs(&result), expected_pairs, "{threshold}");
        for (removal, (_, _, cosine)) in result.removed.iter().zip(&expected) {
            assert!((removal.cosine - cosine).abs() < 1e-6, "{removal:?}, not {cosine}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn within_clusters_it_is_brute_force(
        seed in any::<u64>(), assignment in prop::collection::vec(0u32..4, 90), block in 1usize..200
    ) {
        let (values, rows) = planted(seed, 40, 50, 12, 0.3);
        let members = Members::new(&assignment, 4);
        let slice = EmbeddingSlice::new(&values, rows, 12).unwrap();
        let found = star::removals_with(&slice, &members, 0.75, block, 7, &|| true).unwrap();
        let mut expected: Vec<(u32, u32)> = Vec::new();
        for cluster in members.iter() {
            let own: Vec<f32> = cluster.iter().flat_map(|&row| &values[row as usize * 12..][..12]).copied().collect();
            let pairs = brute_force(&own, 12, 0.75);
            expected.extend(pairs.iter().map(|&(i, j)| (cluster[i as usize], cluster[j as usize])));
        }
        expected.sort_unstable();
        let found: Vec<_> = found.iter().map(|removal| (removal.row, removal.dup_of)).collect();
        prop_assert_eq!(found, expected);
    }
}
