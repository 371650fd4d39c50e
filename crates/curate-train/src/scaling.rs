//! Scaling laws: the loss as a function of parameters `N` and training tokens `D`, fitted to runs, and what it advises.
//!
//! ```text
//! chinchilla   L = E + A / N^α + B / D^β                          (Hoffmann et al. 2022, approach 3)
//! kaplan       L = ((Nc / N)^(αN / αD) + Dc / D)^αD               (Kaplan et al. 2020, equation 1.5)
//! ```
//! A fit minimises the *sum* over runs of the Huber loss (δ = 1e-3) of ln L predicted less ln L measured, by L-BFGS from
//! the best points of a grid. The mean in place of the sum made a published fit stop early (Besiroglu et al. 2024).
//! Intervals are percentiles of fits to runs drawn with replacement. A run of `6 N D` FLOPs is assumed in plans.
//!
//! Inside, `ln N` and `ln D` are counted from their means, which takes most of the correlation out of the parameters.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::RunConfig;
use crate::rng::Rng;
use crate::train::Record;
use crate::{Error, Result, checkpoint};

/// A run: how large, how long, how good.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Parameters `N`.
    pub params: f64,
    /// Training tokens `D`.
    pub tokens: f64,
    /// Held-out loss in nats per token.
    pub loss: f64,
}

/// The form of a law.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Hoffmann et al. 2022.
    Chinchilla,
    /// Kaplan et al. 2020.
    Kaplan,
}

/// A law with its constants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "lowercase")]
pub enum Law {
    /// `E + A / N^alpha + B / D^beta`.
    Chinchilla {
        /// Loss that no model can undercut.
        e: f64,
        /// Weight of the parameters.
        a: f64,
        /// Weight of the tokens.
        b: f64,
        /// Exponent of the parameters.
        alpha: f64,
        /// Exponent of the tokens.
        beta: f64,
    },
    /// `((n_c / N)^(alpha_n / alpha_d) + d_c / D)^alpha_d`; `N` counts no embeddings.
    Kaplan {
        /// Scale of the parameters.
        n_c: f64,
        /// Scale of the tokens.
        d_c: f64,
        /// Exponent of the parameters.
        alpha_n: f64,
        /// Exponent of the tokens.
        alpha_d: f64,
    },
}

/// A law that was published: name, where, constants.
#[derive(Clone, Debug)]
pub struct Published {
    /// Its name on the command line.
    pub name: &'static str,
    /// Where it stands.
    pub source: &'static str,
    /// Its constants.
    pub law: Law,
}

/// The published laws, the default first. All were fitted to web text and tokenizers of their authors: other corpora have
/// other constants.
pub fn published() -> [Published; 4] {
    let chinchilla = |e, a, b, alpha, beta| Law::Chinchilla { e, a, b, alpha, beta };
    [
        Published {
            name: "besiroglu",
            source: "Besiroglu et al. 2024, arXiv 2404.10102: a refit of Hoffmann's runs",
            law: chinchilla(1.8172, 482.01, 2085.43, 0.3478, 0.3658),
        },
        Published {
            name: "hoffmann",
            source: "Hoffmann et al. 2022, arXiv 2203.15556, equation 10, rounded as printed",
            law: chinchilla(1.69, 406.4, 410.7, 0.34, 0.28),
        },
        Published {
            name: "hoffmann-tex",
            source: "Hoffmann et al. 2022, with the digits of the paper's source",
            law: chinchilla(1.6934, 406.4, 410.7, 0.3392, 0.2849),
        },
        Published {
            name: "kaplan",
            source: "Kaplan et al. 2020, arXiv 2001.08361, table 3; parameters without embeddings",
            law: Law::Kaplan { n_c: 6.4e13, d_c: 1.8e13, alpha_n: 0.076, alpha_d: 0.103 },
        },
    ]
}

/// The best split of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Parameters.
    pub params: f64,
    /// Tokens.
    pub tokens: f64,
    /// Tokens for each parameter.
    pub tokens_per_param: f64,
    /// Loss that the law expects.
    pub loss: f64,
}

impl Law {
    /// The expected loss in nats per token.
    pub fn loss(&self, params: f64, tokens: f64) -> f64 {
        match *self {
            Law::Chinchilla { e, a, b, alpha, beta } => e + a * params.powf(-alpha) + b * tokens.powf(-beta),
            Law::Kaplan { n_c, d_c, alpha_n, alpha_d } => {
                ((n_c / params).powf(alpha_n / alpha_d) + d_c / tokens).powf(alpha_d)
            }
        }
    }

    /// The parameters and tokens with the least loss under `6 N D = flops`, by golden-section search over ln N: the loss
    /// falls and then rises along the budget.
    pub fn plan(&self, flops: f64) -> Plan {
        let product = flops / 6.0;
        let loss = |ln_n: f64| self.loss(ln_n.exp(), product / ln_n.exp());
        let ratio = (5f64.sqrt() - 1.0) / 2.0;
        let (mut low, mut high) = (0.0, product.ln());
        for _ in 0..120 {
            let (left, right) = (high - ratio * (high - low), low + ratio * (high - low));
            if loss(left) < loss(right) {
                high = right;
            } else {
                low = left;
            }
        }
        let params = (0.5 * (low + high)).exp();
        let tokens = product / params;
        Plan { params, tokens, tokens_per_param: tokens / params, loss: self.loss(params, tokens) }
    }

    /// Names and values of the constants, in order.
    pub fn constants(&self) -> Vec<(&'static str, f64)> {
        match *self {
            Law::Chinchilla { e, a, b, alpha, beta } => {
                vec![("E", e), ("A", a), ("B", b), ("alpha", alpha), ("beta", beta)]
            }
            Law::Kaplan { n_c, d_c, alpha_n, alpha_d } => {
                vec![("Nc", n_c), ("Dc", d_c), ("alpha_N", alpha_n), ("alpha_D", alpha_d)]
            }
        }
    }
}

/// The outcome of a fit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// The law.
    pub law: Law,
    /// Runs.
    pub runs: usize,
    /// Sum of the Huber losses at the solution.
    pub objective: f64,
    /// Root mean square of ln L predicted less ln L measured.
    pub rms: f64,
    /// Name and middle 95 % of each constant over the resamples.
    pub intervals: Vec<(String, [f64; 2])>,
    /// Fits to runs drawn with replacement.
    pub resamples: u32,
}

/// Where the residual stops being squared.
const HUBER_DELTA: f64 = 1e-3;

/// Most parameters of a form.
const K: usize = 5;

type Theta = [f64; K];

/// Runs as the optimiser sees them.
struct Problem {
    form: Form,
    /// ln N and ln D from their means, ln L.
    rows: Vec<[f64; 3]>,
    mean: [f64; 2],
}

/// Fits a law.
///
/// # Errors
/// [`Error::Option`] with fewer runs than constants, or numbers that are not positive.
pub fn fit(form: Form, points: &[Point], resamples: u32) -> Result<Fit> {
    let problem = Problem::new(form, points)?;
    let best = problem.solve();
    let law = problem.law(&best);
    let square = |p: &Point| (law.loss(p.params, p.tokens).ln() - p.loss.ln()).powi(2);
    let rms = (points.iter().map(square).sum::<f64>() / points.len() as f64).sqrt();
    let mut rng = Rng::new(1, "bootstrap over runs");
    let mut draws: Vec<Vec<f64>> = vec![Vec::new(); law.constants().len()];
    for _ in 0..resamples {
        let draw = |_| problem.rows[(rng.uniform() * problem.rows.len() as f64) as usize];
        let rows = (0..problem.rows.len()).map(draw).collect();
        let drawn = Problem { form, rows, mean: problem.mean };
        let found = drawn.law(&drawn.descend(best, 400));
        draws.iter_mut().zip(found.constants()).for_each(|(draws, (_, value))| draws.push(value));
    }
    let middle = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        [0.025, 0.975].map(|share| values[(share * (values.len() - 1) as f64).round() as usize])
    };
    let named = law.constants().into_iter().zip(&mut draws).filter(|(_, draws)| !draws.is_empty());
    let intervals = named.map(|((name, _), draws)| (name.to_owned(), middle(draws))).collect();
    let (objective, _) = problem.objective(&best);
    Ok(Fit { law, runs: points.len(), objective, rms, intervals, resamples })
}

impl Problem {
    fn new(form: Form, points: &[Point]) -> Result<Problem> {
        if points.len() < K {
            let problem =
                format!("{} runs cannot determine the constants: at least {K} are needed", points.len());
            return Err(Error::option("RUNS", problem));
        }
        let valid = |x: f64| x > 0.0 && x.is_finite();
        if let Some(p) = points.iter().find(|p| !(valid(p.params) && valid(p.tokens) && valid(p.loss))) {
            return Err(Error::option("RUNS", format!("a run's numbers are not positive: {p:?}")));
        }
        let n = points.len() as f64;
        let mean = [
            points.iter().map(|p| p.params.ln()).sum::<f64>() / n,
            points.iter().map(|p| p.tokens.ln()).sum::<f64>() / n,
        ];
        let row = |p: &Point| [p.params.ln() - mean[0], p.tokens.ln() - mean[1], p.loss.ln()];
        Ok(Problem { form, rows: points.iter().map(row).collect(), mean })
    }

    /// ln L and its gradient.
    ///
    /// chinchilla: θ = (ln A', ln B', ln E, α, β); kaplan: θ = (c, v, αD, p), ln L = αD ln(exp(c - p x) + exp(v - y)).
    fn predict(&self, t: &Theta, x: f64, y: f64) -> (f64, Theta) {
        match self.form {
            Form::Chinchilla => {
                let (sum, [p, q, r]) = log_sum_exp([t[0] - t[3] * x, t[1] - t[4] * y, t[2]]);
                (sum, [p, q, r, -p * x, -q * y])
            }
            Form::Kaplan => {
                let (sum, [p, q, _]) = log_sum_exp([t[0] - t[3] * x, t[1] - y, f64::NEG_INFINITY]);
                (t[2] * sum, [t[2] * p, t[2] * q, sum, -t[2] * p * x, 0.0])
            }
        }
    }

    fn objective(&self, theta: &Theta) -> (f64, Theta) {
        let (mut sum, mut gradient) = (0.0, [0.0; K]);
        for &[x, y, measured] in &self.rows {
            let (predicted, slope) = self.predict(theta, x, y);
            let r = predicted - measured;
            let (loss, weight) = match r.abs() <= HUBER_DELTA {
                true => (0.5 * r * r, r),
                false => (HUBER_DELTA * (r.abs() - 0.5 * HUBER_DELTA), HUBER_DELTA * r.signum()),
            };
            sum += loss;
            gradient.iter_mut().zip(slope).for_each(|(g, s)| *g += weight * s);
        }
        (sum, gradient)
    }

    /// Starting points, spread over what laws of language have looked like.
    fn grid(&self) -> Vec<Theta> {
        let mean = self.rows.iter().map(|row| row[2]).sum::<f64>() / self.rows.len() as f64;
        let mut grid = Vec::new();
        match self.form {
            // At the centre of the data each of the three terms is some share of the loss.
            Form::Chinchilla => {
                for a in [-4.0, -2.5, -1.5, -0.7] {
                    for b in [-4.0, -2.5, -1.5, -0.7] {
                        for e in [-2.0, -0.7, -0.2, -0.05] {
                            for alpha in [0.1, 0.3, 0.6, 1.0] {
                                for beta in [0.1, 0.3, 0.6, 1.0] {
                                    grid.push([mean + a, mean + b, mean + e, alpha, beta]);
                                }
                            }
                        }
                    }
                }
            }
            Form::Kaplan => {
                for alpha_d in [0.03, 0.06, 0.1, 0.2, 0.4] {
                    for p in [0.2, 0.5, 0.75, 1.0, 2.0] {
                        for c in [-3.0, -1.0, 0.0] {
                            for v in [-3.0, -1.0, 0.0] {
                                grid.push([mean / alpha_d + c, mean / alpha_d + v, alpha_d, p, 0.0]);
                            }
                        }
                    }
                }
            }
        }
        grid
    }

    fn solve(&self) -> Theta {
        let by_objective = |mut thetas: Vec<Theta>, keep: usize| {
            thetas.sort_by(|a, b| self.objective(a).0.total_cmp(&self.objective(b).0));
            thetas.truncate(keep);
            thetas
        };
        let mut thetas = by_objective(self.grid(), 200);
        for (steps, keep) in [(40, 20), (400, 5), (4000, 1)] {
            let found = thetas.into_iter().map(|theta| self.descend(theta, steps)).collect();
            thetas = by_objective(found, keep);
        }
        thetas[0]
    }

    /// L-BFGS with a backtracking line search (Nocedal, Wright 2006, algorithms 7.4 and 3.1), begun anew where it stalls.
    fn descend(&self, mut theta: Theta, max_steps: usize) -> Theta {
        let (mut value, mut gradient) = self.objective(&theta);
        let mut pairs: Vec<(Theta, Theta)> = Vec::new();
        for _ in 0..max_steps {
            let mut direction = two_loops(&pairs, &gradient);
            let mut slope = dot(&direction, &gradient);
            if slope >= 0.0 {
                pairs.clear();
                direction = gradient.map(|g| -g);
                slope = -dot(&gradient, &gradient);
            }
            if slope.abs() < 1e-30 {
                break;
            }
            // Without curvature the gradient's length says nothing about the step: try a small one.
            let mut step =
                if pairs.is_empty() { 0.1 / dot(&gradient, &gradient).sqrt().max(1e-12) } else { 1.0 };
            let mut accepted = None;
            for _ in 0..60 {
                let mut next = theta;
                next.iter_mut().zip(direction).for_each(|(t, d)| *t += step * d);
                let (next_value, next_gradient) = self.objective(&next);
                if next_value <= value + 1e-4 * step * slope {
                    accepted = Some((next, next_value, next_gradient));
                    break;
                }
                step *= 0.5;
            }
            let Some((next, next_value, next_gradient)) = accepted else {
                if pairs.is_empty() {
                    break;
                }
                pairs.clear();
                continue;
            };
            let difference = |a: &Theta, b: &Theta| std::array::from_fn(|i| a[i] - b[i]);
            let (s, y): (Theta, Theta) = (difference(&next, &theta), difference(&next_gradient, &gradient));
            if dot(&s, &y) > 1e-18 {
                pairs.push((s, y));
                if pairs.len() > 10 {
                    pairs.remove(0);
                }
            }
            (theta, value, gradient) = (next, next_value, next_gradient);
        }
        theta
    }

    fn law(&self, t: &Theta) -> Law {
        let [x, y] = self.mean;
        match self.form {
            Form::Chinchilla => Law::Chinchilla {
                e: t[2].exp(),
                a: (t[0] + t[3] * x).exp(),
                b: (t[1] + t[4] * y).exp(),
                alpha: t[3],
                beta: t[4],
            },
            Form::Kaplan => Law::Kaplan {
                n_c: (t[0] / t[3] + x).exp(),
                d_c: (t[1] + y).exp(),
                alpha_n: t[3] * t[2],
                alpha_d: t[2],
            },
        }
    }
}

/// ln of the sum of exponentials, and each one's share.
fn log_sum_exp(terms: [f64; 3]) -> (f64, [f64; 3]) {
    let largest = terms.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let weights = terms.map(|term| (term - largest).exp());
    let sum: f64 = weights.iter().sum();
    (largest + sum.ln(), weights.map(|weight| weight / sum))
}

fn dot(a: &Theta, b: &Theta) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Minus the inverse Hessian, as far as the pairs tell it, times the gradient.
fn two_loops(pairs: &[(Theta, Theta)], gradient: &Theta) -> Theta {
    let mut q = *gradient;
    let mut factors = Vec::with_capacity(pairs.len());
    for (s, y) in pairs.iter().rev() {
        let factor = dot(s, &q) / dot(s, y);
        factors.push(factor);
        q.iter_mut().zip(y).for_each(|(q, y)| *q -= factor * y);
    }
    if let Some((s, y)) = pairs.last() {
        let scale = dot(s, y) / dot(y, y);
        q = q.map(|q| q * scale);
    }
    for ((s, y), factor) in pairs.iter().zip(factors.into_iter().rev()) {
        let back = factor - dot(y, &q) / dot(s, y);
        q.iter_mut().zip(s).for_each(|(q, s)| *q += back * s);
    }
    q.map(|q| -q)
}

/// Reads runs: JSON Lines with `params`, `tokens` and `loss`, or run directories (or their `log.jsonl`) of `curate train`.
///
/// # Errors
/// [`Error::Foreign`] with the line that is none of these, or for a run without an evaluation.
pub fn read_points(paths: &[PathBuf]) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for path in paths {
        let log = if path.is_dir() { path.join("log.jsonl") } else { path.clone() };
        let text = std::fs::read_to_string(&log).map_err(Error::io(&log))?;
        let config = log.with_file_name("config.json");
        let is_log = text.lines().next().is_some_and(|line| serde_json::from_str::<Record>(line).is_ok());
        if is_log && config.is_file() {
            points.push(run_point(&log, &text, &config)?);
            continue;
        }
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let point = serde_json::from_str(line).map_err(|error| Error::Foreign {
                path: log.clone(),
                problem: format!("line {}: {error}; expected params, tokens and loss", number + 1),
            })?;
            points.push(point);
        }
    }
    Ok(points)
}

/// The last evaluation of a run.
fn run_point(log: &Path, text: &str, config: &Path) -> Result<Point> {
    let run: RunConfig = checkpoint::read_json(config, "run configuration")?;
    let params = run.options.model.num_parameters() as f64;
    let (mut tokens, mut found) = (0.0, None);
    for value in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        tokens = value["targets"].as_f64().unwrap_or(tokens);
        if let Some(loss) = value["nats_per_token"].as_f64() {
            found = Some(Point { params, tokens, loss });
        }
    }
    let problem = "the run has no evaluation: train it on shards with a held-out split".to_owned();
    found.ok_or_else(|| Error::Foreign { path: log.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn law(name: &str) -> Law {
        published().into_iter().find(|law| law.name == name).unwrap().law
    }

    /// Nine sizes by six lengths, with noise in ln L.
    fn runs(law: &Law, noise: f64) -> Vec<Point> {
        let mut rng = Rng::new(4, "runs");
        let mut points = Vec::new();
        for i in 0..9 {
            for j in 0..6 {
                let (params, tokens) = (1e7 * 2.2f64.powi(i), 2e8 * 3f64.powi(j));
                let factor = f64::from(rng.normal(1, noise)[0]).exp();
                points.push(Point { params, tokens, loss: law.loss(params, tokens) * factor });
            }
        }
        points
    }

    fn check(form: Form, name: &str, noise: f64, tolerance: f64) {
        let expected = law(name);
        let fit = fit(form, &runs(&expected, noise), 0).unwrap();
        for ((constant, found), (_, expected)) in fit.law.constants().into_iter().zip(expected.constants()) {
            // Scales stand in exponents: their logarithms are what is determined.
            let (found, expected) =
                if expected > 100.0 { (found.ln(), expected.ln()) } else { (found, expected) };
            assert!(
                (found / expected - 1.0).abs() < tolerance,
                "{name} {constant}: {found}, expected {expected}"
            );
        }
    }

    #[test]
    fn known_constants_are_recovered() {
        check(Form::Chinchilla, "hoffmann", 0.0, 0.01);
        check(Form::Chinchilla, "besiroglu", 0.0, 0.01);
        check(Form::Chinchilla, "besiroglu", 0.001, 0.06);
        check(Form::Kaplan, "kaplan", 0.0, 0.01);
    }

    #[test]
    fn intervals_hold_the_constants() {
        let expected = law("besiroglu");
        let fit = fit(Form::Chinchilla, &runs(&expected, 0.003), 60).unwrap();
        for ((name, [low, high]), (_, value)) in fit.intervals.iter().zip(expected.constants()) {
            assert!(
                low < high && *low < value * 1.3 && *high > value * 0.7,
                "{name}: {low} to {high}, is {value}"
            );
        }
    }

    #[test]
    fn published_optima() {
        // Closed form: N = G (C / 6)^(β / (α + β)) with G = (α A / (β B))^(1 / (α + β)).
        for published in published() {
            let Law::Chinchilla { a, b, alpha, beta, .. } = published.law else { continue };
            let flops = 5.76e23;
            let g = (alpha * a / (beta * b)).powf(1.0 / (alpha + beta));
            let params = g * (flops / 6.0f64).powf(beta / (alpha + beta));
            let plan = published.law.plan(flops);
            assert!(
                (plan.params / params - 1.0).abs() < 1e-3,
                "{}: {} {params}",
                published.name,
                plan.params
            );
            assert!((6.0 * plan.params * plan.tokens / flops - 1.0).abs() < 1e-9);
        }
        // At Chinchilla's own budget.
        let ratio = |name| law(name).plan(5.76e23).tokens_per_param;
        assert!((ratio("besiroglu") - 18.4).abs() < 0.5, "{}", ratio("besiroglu"));
        assert!((ratio("hoffmann-tex") - 59.0).abs() < 2.0, "{}", ratio("hoffmann-tex"));
        assert!((ratio("hoffmann") - 93.0).abs() < 2.0, "{}", ratio("hoffmann"));
        assert!(ratio("kaplan") < 10.0, "{}", ratio("kaplan"));
    }

    #[test]
    fn gradients_are_those_of_the_objective() {
        for (form, name) in [(Form::Chinchilla, "hoffmann"), (Form::Kaplan, "kaplan")] {
            let problem = Problem::new(form, &runs(&law(name), 0.01)).unwrap();
            let theta = problem.grid()[100];
            let (_, gradient) = problem.objective(&theta);
            for i in 0..K {
                let at = |h: f64| {
                    let mut moved = theta;
                    moved[i] += h;
                    problem.objective(&moved).0
                };
                let expected = (at(1e-6) - at(-1e-6)) / 2e-6;
                assert!((gradient[i] - expected).abs() < 1e-6 * (1.0 + expected.abs()), "{form:?} {i}");
            }
        }
    }

    #[test]
    fn impossible_runs_are_refused() {
        let point = Point { params: 1.0, tokens: 1.0, loss: 1.0 };
        let message = |points: &[Point]| fit(Form::Chinchilla, points, 0).unwrap_err().to_string();
        assert!(message(&[point; 4]).contains("4 runs cannot determine"));
        assert!(message(&[Point { loss: 0.0, ..point }; 5]).contains("not positive"));
    }
}
