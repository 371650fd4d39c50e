//! The training curve as a picture: loss by step, with the evaluations, as SVG.

use std::fmt::Write;

/// Points of a line at most; above that, neighbours are averaged.
const MOST_POINTS: usize = 1000;

/// Steps of which a point of the smooth line is the mean, as a share of all.
const SMOOTH_SHARE: f64 = 0.02;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 420.0;
/// Space for the labels: left, right, top, bottom.
const MARGIN: [f64; 4] = [64.0, 16.0, 40.0, 48.0];

/// Losses in nats by step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Of each step.
    pub train: Vec<(u64, f64)>,
    /// Of each evaluation.
    pub eval: Vec<(u64, f64)>,
}

impl Curve {
    /// Draws the curve. Losses that are no finite number are left out.
    pub fn svg(&self, title: &str, split: &str) -> String {
        let finite = |points: &[(u64, f64)]| {
            points
                .iter()
                .filter(|(_, loss)| loss.is_finite())
                .map(|&(step, loss)| (step as f64, loss))
                .collect()
        };
        let (train, eval): (Vec<_>, Vec<_>) = (finite(&self.train), finite(&self.eval));
        let smooth = smoothed(&train);
        // The range is that of what is smooth: one spike should not flatten the curve.
        let shown = || smooth.iter().chain(&eval);
        let low = shown().map(|p| p.1).fold(f64::INFINITY, f64::min);
        let high = shown().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = if low < high { (low, high) } else { (low.min(1e9) - 0.5, low.min(1e9) + 0.5) };
        let last = train.iter().chain(&eval).map(|p| p.0).fold(1.0, f64::max);
        let y_ticks = ticks(low, high);
        let scale = Scale {
            last,
            low: low.min(y_ticks.first().copied().unwrap_or(low)),
            high: high.max(y_ticks.last().copied().unwrap_or(high)),
        };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
            title = escaped(title)
        );
        let mut text = |x: f64, y: f64, anchor: &str, text: &str| {
            let text = escaped(text);
            let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
        };
        text(MARGIN[0], 18.0, "start", title);
        for &tick in &y_ticks {
            text(MARGIN[0] - 6.0, scale.y(tick) + 4.0, "end", &format!("{tick}"));
        }
        for &tick in &ticks(0.0, last) {
            text(scale.x(tick), HEIGHT - MARGIN[3] + 18.0, "middle", &format!("{tick}"));
        }
        text(WIDTH / 2.0, HEIGHT - 10.0, "middle", "step");
        text(WIDTH - MARGIN[1], 18.0, "end", &format!("nats per token: train (line), {split} (dots)"));
        for &tick in &y_ticks {
            let y = scale.y(tick);
            let (from, to) = (MARGIN[0], WIDTH - MARGIN[1]);
            let _ = writeln!(svg, "<path d=\"M{from} {y:.1}H{to}\" stroke=\"#ddd\" fill=\"none\"/>");
        }
        // What leaves the range is cut at its edge.
        let height = HEIGHT - MARGIN[2] - MARGIN[3];
        let width = WIDTH - MARGIN[0] - MARGIN[1];
        let _ = writeln!(
            svg,
            "<clipPath id=\"a\"><rect x=\"{}\" y=\"{}\" width=\"{width}\" height=\"{height}\"/></clipPath>\n\
             <g clip-path=\"url(#a)\" fill=\"none\">",
            MARGIN[0], MARGIN[2]
        );
        for (points, style) in [
            (thinned(&train), "stroke=\"#9bb8d3\""),
            (smooth, "stroke=\"#1f5a96\" stroke-width=\"2\""),
            (eval.clone(), "stroke=\"#c0392b\" stroke-dasharray=\"4 3\""),
        ] {
            let _ = writeln!(svg, "<polyline points=\"{}\" {style}/>", scale.points(&points));
        }
        svg += "</g>\n";
        for point in &eval {
            let (x, y) = (scale.x(point.0), scale.y(point.1));
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#c0392b\"/>");
        }
        svg + "</svg>\n"
    }
}

/// From numbers to places on the page.
struct Scale {
    last: f64,
    low: f64,
    high: f64,
}

impl Scale {
    fn x(&self, step: f64) -> f64 {
        MARGIN[0] + (WIDTH - MARGIN[0] - MARGIN[1]) * step / self.last
    }

    fn y(&self, loss: f64) -> f64 {
        let up = (loss - self.low) / (self.high - self.low);
        HEIGHT - MARGIN[3] - (HEIGHT - MARGIN[2] - MARGIN[3]) * up
    }

    fn points(&self, points: &[(f64, f64)]) -> String {
        let one = |&(step, loss): &(f64, f64)| format!("{:.1},{:.1}", self.x(step), self.y(loss));
        points.iter().map(one).collect::<Vec<_>>().join(" ")
    }
}

/// Means of neighbours, so that few enough are left.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    means(points, points.len().div_ceil(MOST_POINTS))
}

fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    means(points, ((points.len() as f64 * SMOOTH_SHARE) as usize).max(1))
}

fn means(points: &[(f64, f64)], size: usize) -> Vec<(f64, f64)> {
    let mean = |group: &[(f64, f64)]| {
        let n = group.len() as f64;
        (group.iter().map(|p| p.0).sum::<f64>() / n, group.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks(size.max(1)).map(mean).collect()
}

/// Round numbers that cover the range: four to nine of them.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 6.0;
    let power = 10f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let (first, last) = ((low / step).floor() as i64, (high / step).ceil() as i64);
    // Rounded to the digits of the step, so that 0.3 is not 0.30000000000000004.
    let digits = (-step.log10().floor()).max(0.0) as usize;
    (first..=last).filter_map(|i| format!("{:.digits$}", i as f64 * step).parse().ok()).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_range() {
        assert_eq!(ticks(0.0, 2000.0), [0.0, 500.0, 1000.0, 1500.0, 2000.0]);
        assert_eq!(ticks(1.47, 4.2), [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5]);
        assert_eq!(ticks(0.21, 0.39), [0.2, 0.25, 0.3, 0.35, 0.4]);
    }

    #[test]
    fn every_evaluation_is_a_dot_inside_the_frame() {
        let train = (1..=5000).map(|step| (step, 4.0 - 2.0 * step as f64 / 5000.0)).collect();
        let curve = Curve { train, eval: vec![(2500, 3.1), (5000, 2.2), (5000, f64::NAN)] };
        let svg = curve.svg("a & <b>", "val");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains("a &amp; &lt;b&gt;"));
        assert_eq!(svg.matches("<circle").count(), 2);
        let line = svg.lines().find(|line| line.contains("#9bb8d3")).unwrap();
        assert_eq!(line.matches(',').count(), MOST_POINTS);
        let mut numbers = svg.split(['"', ' ', ',']).filter_map(|word| word.parse::<f64>().ok());
        assert!(numbers.all(|x| (0.0..=WIDTH).contains(&x)), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn there_is_a_picture_of_one_step_and_of_none() {
        for train in [vec![], vec![(1, 3.3)], vec![(1, f64::NAN)]] {
            let svg = Curve { train, eval: vec![] }.svg("run", "val");
            assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
