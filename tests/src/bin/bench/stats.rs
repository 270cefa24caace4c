//! What many noisy rounds tell.

/// Numbers of the same thing, one a round.
pub struct Sample(Vec<f64>);

impl Sample {
    /// # Panics
    ///
    /// Without any number: there is no benchmark without a round.
    pub fn new(numbers: impl IntoIterator<Item = f64>) -> Self {
        let mut numbers: Vec<f64> = numbers.into_iter().collect();
        assert!(!numbers.is_empty(), "a benchmark has at least one round");
        numbers.sort_by(f64::total_cmp);
        Self(numbers)
    }

    pub fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        if self.0.len() % 2 == 1 { self.0[middle] } else { f64::midpoint(self.0[middle - 1], self.0[middle]) }
    }

    pub fn min(&self) -> f64 {
        self.0[0]
    }

    pub fn max(&self) -> f64 {
        self.0[self.0.len() - 1]
    }

    /// Median, and from the least to the most.
    pub fn spread(&self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$}–{:.digits$})", self.median(), self.min(), self.max())
    }

    /// Where the true median is, with a confidence of 95 % from six numbers on and less below. It rests on
    /// the order of the numbers alone: noise of a shared machine follows no known distribution.
    pub fn interval(&self) -> (f64, f64) {
        let n = self.0.len();
        // The chance that `cut` numbers or fewer are on one given side of the true median is the binomial
        // sum for a fair coin; on either side, twice that.
        let mut chance = 0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
        let mut sum = chance;
        let mut cut = 0;
        while cut + 1 < n / 2 {
            #[expect(clippy::cast_precision_loss, reason = "rounds are few")]
            let step = (n - cut) as f64 / (cut + 1) as f64;
            chance *= step;
            sum += chance;
            if 2.0 * sum > 0.05 {
                break;
            }
            cut += 1;
        }
        (self.0[cut], self.0[n - 1 - cut])
    }

    /// Whether the true median is at most `goal`, as far as the noise lets one tell.
    pub fn at_most(&self, goal: f64) -> Verdict {
        let (low, high) = self.interval();
        if high <= goal {
            Verdict::Passes
        } else if low > goal {
            Verdict::FallsShort
        } else {
            Verdict::Unclear
        }
    }

    /// Whether the true median is at least `goal`, likewise.
    pub fn at_least(&self, goal: f64) -> Verdict {
        let (low, high) = self.interval();
        if low >= goal {
            Verdict::Passes
        } else if high < goal {
            Verdict::FallsShort
        } else {
            Verdict::Unclear
        }
    }
}

/// How a figure stands to its goal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    Passes,
    FallsShort,
    /// The goal is inside the interval.
    Unclear,
}

impl From<bool> for Verdict {
    fn from(passes: bool) -> Self {
        if passes { Self::Passes } else { Self::FallsShort }
    }
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Self::Passes => "passes",
            Self::FallsShort => "falls short",
            Self::Unclear => "unclear",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middles() {
        assert!((Sample::new([3.0, 1.0, 2.0]).median() - 2.0).abs() < f64::EPSILON);
        assert!((Sample::new([4.0, 1.0, 2.0, 3.0]).median() - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn the_interval_cuts_what_the_table_of_the_sign_test_says() {
        for (numbers, cut) in [(1, 0), (5, 0), (7, 0), (8, 0), (9, 1), (11, 1), (12, 2), (15, 3), (25, 7)] {
            let sample = Sample::new((0..numbers).map(f64::from));
            let expected = (f64::from(cut), f64::from(numbers - 1 - cut));
            assert_eq!(sample.interval(), expected, "{numbers}");
        }
    }

    #[test]
    fn a_goal_inside_the_interval_is_unclear() {
        let sample = Sample::new([1.0, 2.0, 3.0]);
        assert_eq!(sample.at_most(3.0), Verdict::Passes);
        assert_eq!(sample.at_most(2.5), Verdict::Unclear);
        assert_eq!(sample.at_most(0.5), Verdict::FallsShort);
        assert_eq!(sample.at_least(1.0), Verdict::Passes);
        assert_eq!(sample.at_least(1.5), Verdict::Unclear);
        assert_eq!(sample.at_least(3.5), Verdict::FallsShort);
    }
}
