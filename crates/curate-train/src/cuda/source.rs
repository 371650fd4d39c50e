//! The kernels' source, which is part of the program, and their signatures, which are read from it.
//!
//! A launch hands the driver bare addresses, so a wrong argument would be silent damage on the device. Every launch is
//! therefore held against the signature as the compiler sees it ([`super::launch`]).

use std::collections::BTreeMap;
use std::sync::OnceLock;

use tch::Kind;

/// Files in the order in which they are compiled, as one program.
const FILES: [(&str, &str); 7] = [
    ("common.cuh", include_str!("kernels/common.cuh")),
    ("norm.cu", include_str!("kernels/norm.cu")),
    ("activation.cu", include_str!("kernels/activation.cu")),
    ("cross_entropy.cu", include_str!("kernels/cross_entropy.cu")),
    ("embedding.cu", include_str!("kernels/embedding.cu")),
    ("heads.cu", include_str!("kernels/heads.cu")),
    ("optimizer.cu", include_str!("kernels/optimizer.cu")),
];

/// Elements of a piece in `optimizer.cu`.
pub(crate) const PIECE: usize = 16_384;

/// Warps of a block of `column_sums`, and of `embedding_backward`.
pub(crate) const SUM_WARPS: u32 = 8;

/// Largest head that `heads.cu` takes: four pairs a lane.
pub(crate) const MOST_HEAD_SIZE: u32 = 256;

/// The whole program; compiler messages name the files.
pub(crate) fn program() -> String {
    FILES.iter().map(|(name, text)| format!("#line 1 \"{name}\"\n{text}\n")).collect()
}

/// The definition that chooses the element type.
pub(crate) fn element_option(kind: Kind) -> &'static str {
    if kind == Kind::BFloat16 { "-DELEMENT_BF16=1" } else { "-DELEMENT_BF16=0" }
}

/// Elements of 16 bytes.
pub(crate) fn pack(kind: Kind) -> i64 {
    if kind == Kind::BFloat16 { 8 } else { 4 }
}

/// The type of a kernel's parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// Activations: bf16 or fp32.
    Elements,
    Floats,
    Doubles,
    Ints,
    Longs,
    Int,
    Long,
    Float,
}

impl Type {
    /// The type as it stands in the source, `const` left out.
    fn parse(text: &str) -> Option<Type> {
        Some(match text {
            "element*" => Type::Elements,
            "float*" => Type::Floats,
            "double*" => Type::Doubles,
            "int*" => Type::Ints,
            "long long*" => Type::Longs,
            "int" => Type::Int,
            "long long" => Type::Long,
            "float" => Type::Float,
            _ => return None,
        })
    }
}

/// Parameter types of every kernel by its name.
pub(crate) fn signatures() -> &'static BTreeMap<String, Vec<Type>> {
    static SIGNATURES: OnceLock<BTreeMap<String, Vec<Type>>> = OnceLock::new();
    SIGNATURES.get_or_init(|| FILES.iter().flat_map(|(_, text)| parse(&expanded(text))).collect())
}

/// The kernels of a source: `extern "C" __global__ void NAME(TYPE NAME, …)`.
///
/// # Panics
/// If a parameter has a type that launches do not know; the sources are part of the program, and a test reads them.
fn parse(text: &str) -> Vec<(String, Vec<Type>)> {
    let kernel = |rest: &str| {
        let (head, _) = rest.split_once('{').expect("a kernel has a body");
        let (name, parameters) = head.split_once('(').expect("a kernel has parameters");
        let parameter = |text: &str| {
            let words: Vec<&str> = text.split_whitespace().filter(|word| *word != "const").collect();
            let (_, of) = words.split_last().expect("a parameter has a name");
            Type::parse(&of.join(" ")).unwrap_or_else(|| panic!("kernel {name}: type {of:?} is not known"))
        };
        let parameters = parameters.trim_end().trim_end_matches(')');
        (name.trim().to_owned(), parameters.split(',').map(parameter).collect())
    };
    text.split("extern \"C\" __global__ void").skip(1).map(kernel).collect()
}

/// The source with those macros put in that make kernels: each has one parameter, which is pasted (`##`) into names.
fn expanded(text: &str) -> String {
    let joined = text.replace("\\\n", " ");
    let (mut out, mut macros) = (String::new(), Vec::new());
    for line in joined.lines() {
        let definition = line.strip_prefix("#define ").and_then(|rest| rest.split_once('('));
        if let Some((name, rest)) = definition
            && let Some((parameter, body)) = rest.split_once(')')
        {
            macros.push((name, parameter, body));
            continue;
        }
        let call = line.strip_suffix(')').and_then(|line| line.split_once('('));
        let known = call.and_then(|(name, argument)| {
            macros.iter().find(|(known, ..)| *known == name).map(|known| (known, argument))
        });
        match known {
            Some(((_, parameter, body), argument)) => {
                let body = body.replace(&format!("##{parameter}"), argument);
                out.push_str(&body.replace(&format!("{parameter}##"), argument));
            }
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_read_from_the_source() {
        let all = signatures();
        assert_eq!(all.len(), 25, "{:?}", all.keys());
        let check = |name: &str, expected: &[Type]| assert_eq!(all[name], expected, "{name}");
        use Type::{Doubles, Elements, Float, Floats, Int, Ints, Long, Longs};
        check("cross_entropy", &[Elements, Floats, Ints, Floats, Int, Int]);
        check("sum_losses", &[Doubles, Floats, Int, Int]);
        check("swiglu_backward", &[Elements, Elements, Long, Int]);
        check("square_sums", &[Doubles, Longs, Longs]);
        check("relu2_forward", &[Elements, Elements, Long]);
        check(
            "norm_forward_4",
            &[Floats, Elements, Floats, Floats, Floats, Elements, Floats, Int, Int, Float],
        );
    }

    #[test]
    fn constants_are_those_of_the_source() {
        let text = program();
        assert!(text.contains(&format!("#define PIECE {PIECE}\n")));
        assert!(text.contains(&format!("#define SUM_WARPS {SUM_WARPS}\n")));
        assert!(text.contains(&format!("#define GATHER_WARPS {SUM_WARPS}\n")));
        assert!(text.contains(&format!("#define MOST_PAIRS {}\n", MOST_HEAD_SIZE / 64)));
    }
}
