//! Ages at which connections are lost, to detect an idle or lifetime limit on the way.

use std::time::Duration;

use crate::{
    close::CloseCode,
    error::{Error, LinkError},
};

/// Number of connections in a row lost at the same age that triggers the warning.
const ROW_LENGTH: u32 = 3;

/// The shortest age that counts.
const MIN_AGE: Duration = Duration::from_secs(5);

/// Detects connections that are lost repeatedly at the same age, without a Close.
#[derive(Debug, Default)]
pub(super) struct Lifetimes {
    /// Age of the first connection of the present row; `row` counts its connections.
    age: Duration,
    row: u32,
}

impl Lifetimes {
    /// Records the loss of a connection of this `age`. Returns the age of its row when that becomes
    /// complete, once per row. Ages within a tenth of the first one's count as equal.
    pub(super) fn record_loss(&mut self, cause: &Error, age: Duration) -> Option<Duration> {
        if !is_silent(cause) || age < MIN_AGE {
            self.row = 0;
            return None;
        }
        let same = age.abs_diff(self.age) <= self.age / 10;
        if self.row > 0 && same {
            self.row = self.row.saturating_add(1);
        } else {
            (self.age, self.row) = (age, 1);
        }
        (self.row == ROW_LENGTH).then_some(self.age)
    }
}

/// Returns `true` if the connection ended without a Close, as when a middlebox drops it.
fn is_silent(cause: &Error) -> bool {
    match cause {
        Error::Link(LinkError::Closed(reason)) => reason.code == CloseCode::Abnormal,
        Error::Link(LinkError::Io(_) | LinkError::TimedOut(_)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut() -> Error {
        LinkError::Closed(CloseCode::Abnormal.into()).into()
    }

    /// Returns the index of each connection that triggers the warning, with the age reported.
    fn told(ages: &[(f64, Error)]) -> Vec<(usize, f64)> {
        let mut lifetimes = Lifetimes::default();
        let lost = |(number, (age, cause)): (usize, &(f64, Error))| {
            let told = lifetimes.record_loss(cause, Duration::from_secs_f64(*age))?;
            Some((number + 1, told.as_secs_f64()))
        };
        ages.iter().enumerate().filter_map(lost).collect()
    }

    #[test]
    fn three_in_a_row_are_told_once() {
        let cuts = |ages: &[f64]| ages.iter().map(|age| (*age, cut())).collect::<Vec<_>>();
        assert_eq!(told(&cuts(&[60.0, 62.0, 58.0, 60.0, 61.0, 60.0, 60.0])), [(3, 60.0)]);
        assert_eq!(told(&cuts(&[60.0, 67.0, 60.0, 67.0])), []);
        assert_eq!(told(&cuts(&[1.0; 10])), []);
        assert_eq!(
            told(&cuts(&[3600.0, 30.0, 30.0, 31.0, 90.0, 90.0, 90.0])),
            [(4, 30.0), (7, 90.0)]
        );
    }

    #[test]
    fn who_says_that_it_closes_is_not_on_the_way() {
        let close = || LinkError::Closed(CloseCode::GoingAway.into()).into();
        let timed_out = || LinkError::TimedOut(Duration::from_secs(30)).into();
        assert_eq!(told(&[(60.0, close()), (60.0, close()), (60.0, close())]), []);
        assert_eq!(told(&[(60.0, cut()), (60.0, close()), (60.0, cut()), (60.0, cut())]), []);
        assert_eq!(told(&[(30.0, timed_out()), (30.0, cut()), (30.0, timed_out())]), [(3, 30.0)]);
    }
}
