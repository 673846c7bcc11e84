//! Medians over the rounds, and how figures are shown.

use std::time::Duration;

pub(crate) fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<_> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 {
        return figures.get(middle).copied();
    }
    Some((figures.get(middle)? + figures.get(middle.checked_sub(1)?)?) / 2.0)
}

/// Returns the spread from the lowest to the highest, as a share of the median.
pub(crate) fn spread(figures: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    let (low, high) = figures
        .clone()
        .fold((f64::MAX, f64::MIN), |(low, high), figure| (low.min(figure), high.max(figure)));
    Some((high - low) / median(figures)?)
}

pub(crate) fn or_dash(figure: Option<f64>, show: impl Fn(f64) -> String) -> String {
    figure.map_or_else(|| "–".into(), show)
}

pub(crate) fn ratio(ratio: f64) -> String {
    match ratio {
        0.1..10.0 => format!("{ratio:.2}"),
        10.0.. => format!("{ratio:.0}"),
        _ => format!("{ratio:.4}"),
    }
}

pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

pub(crate) fn time(micros: f64) -> String {
    match Duration::from_secs_f64(micros / 1e6) {
        long if long >= Duration::from_millis(1) => format!("{:.2} ms", micros / 1e3),
        _ => format!("{micros:.1} µs"),
    }
}
