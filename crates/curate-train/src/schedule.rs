//! The learning rate as a function of the step.

use serde::{Deserialize, Serialize};

/// What the learning rate does after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Half a cosine wave from the peak to the floor.
    Cosine,
    /// A straight line from the peak to the floor.
    Linear,
    /// The peak, to the end.
    Constant,
    /// Warm-up, stable, decay: the peak, then over the last part of the run 1 - sqrt down to the floor (Hägele et al.
    /// 2024). A checkpoint of the stable part can be decayed at any length.
    Wsd,
}

/// A fifth, the share that Hägele et al. found sufficient.
pub(crate) const DECAY_SHARE: f64 = 0.2;

fn default_decay_share() -> f64 {
    DECAY_SHARE
}

/// Learning-rate schedule: linear warm-up to the peak, then a decay to `lr × min_lr_ratio`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Updates in the whole run.
    pub steps: u64,
    /// Shape of the decay.
    pub schedule: Shape,
    /// Peak learning rate.
    pub lr: f64,
    /// Floor as a share of the peak, 0..=1.
    pub min_lr_ratio: f64,
    /// Updates of warm-up.
    pub warmup: u64,
    /// Share of the updates after the warm-up in which [`Shape::Wsd`] decays, 0..=1; the others decay all the time.
    #[serde(default = "default_decay_share")]
    pub decay_share: f64,
}

impl Schedule {
    /// Learning rate of update `step`, counted from 0.
    ///
    /// The warm-up starts at `lr / warmup`, never at 0: an update of size 0 would be a wasted batch. The decay would
    /// reach its floor at `steps`, one after the last update, as in nanoGPT.
    pub fn lr(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.lr * (step + 1) as f64 / self.warmup as f64;
        }
        let decaying = self.steps.saturating_sub(self.warmup).max(1);
        let progress = ((step - self.warmup) as f64 / decaying as f64).min(1.0);
        let above_floor = match self.schedule {
            Shape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            Shape::Linear => 1.0 - progress,
            Shape::Wsd => {
                let decayed = (progress - (1.0 - self.decay_share)).max(0.0);
                // Without a decay the peak holds to the end, where `decayed` is 0.
                1.0 - (decayed / self.decay_share.max(f64::MIN_POSITIVE)).min(1.0).sqrt()
            }
            Shape::Constant => return self.lr,
        };
        self.lr * (self.min_lr_ratio + (1.0 - self.min_lr_ratio) * above_floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schedule: Shape, golden: &[(u64, f64)]) {
        check_share(schedule, DECAY_SHARE, golden);
    }

    fn check_share(schedule: Shape, decay_share: f64, golden: &[(u64, f64)]) {
        let schedule =
            Schedule { steps: 110, schedule, lr: 1e-3, min_lr_ratio: 0.1, warmup: 10, decay_share };
        for &(step, lr) in golden {
            assert!((schedule.lr(step) - lr).abs() < 1e-15, "{schedule:?} at {step}: {}", schedule.lr(step));
        }
    }

    #[test]
    fn golden_values() {
        check(
            Shape::Cosine,
            &[(0, 1e-4), (4, 5e-4), (9, 1e-3), (10, 1e-3), (60, 5.5e-4), (110, 1e-4), (999, 1e-4)],
        );
        check(Shape::Cosine, &[(35, 1e-4 + 9e-4 * (0.5 + 0.5 * std::f64::consts::FRAC_1_SQRT_2))]);
        check(Shape::Linear, &[(0, 1e-4), (10, 1e-3), (35, 7.75e-4), (60, 5.5e-4), (110, 1e-4)]);
        check(Shape::Wsd, &[(0, 1e-4), (10, 1e-3), (90, 1e-3), (95, 5.5e-4), (110, 1e-4)]);
        check(Shape::Constant, &[(0, 1e-4), (10, 1e-3), (109, 1e-3)]);
    }

    #[test]
    fn the_share_of_the_decay_can_be_chosen() {
        check_share(
            Shape::Wsd,
            0.5,
            &[(10, 1e-3), (60, 1e-3), (72, 1e-3 - 9e-4 * 0.24f64.sqrt()), (110, 1e-4)],
        );
        check_share(Shape::Wsd, 1.0, &[(10, 1e-3), (35, 5.5e-4), (110, 1e-4)]);
        check_share(Shape::Wsd, 0.0, &[(10, 1e-3), (109, 1e-3), (110, 1e-3)]);
    }

    #[test]
    fn edges_without_warmup_and_with_nothing_but_warmup() {
        let schedule = |warmup, steps| Schedule {
            steps,
            schedule: Shape::Cosine,
            lr: 1.0,
            min_lr_ratio: 0.0,
            warmup,
            decay_share: DECAY_SHARE,
        };
        assert_eq!(schedule(0, 1).lr(0), 1.0);
        assert_eq!(schedule(5, 5).lr(4), 1.0);
        assert_eq!(schedule(5, 5).lr(5), 1.0);
        assert_eq!(schedule(5, 5).lr(6), 0.0);
    }
}
