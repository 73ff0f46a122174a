//! The ratios as bars, in SVG.

use std::fmt::Write;

use tidings_bench::Row;

/// Ratios beyond these are drawn as these.
const LEAST: f64 = 0.1;
const MOST: f64 = 10.0;

const LABELS: f64 = 860.0;
const BARS: f64 = 400.0;
const VALUES: f64 = 60.0;
const LINE: f64 = 18.0;
const TOP: f64 = 40.0;

/// Draws a bar for each row that has a ratio: from the middle to the right where ours is better, to the left where
/// the baseline is. The scale is logarithmic, so that twice as good and half as good are as long.
pub(crate) fn draw(rows: &[Row]) -> String {
    let bars: Vec<_> = rows
        .iter()
        .filter_map(|row| Some((row, row.ratio()?)))
        .collect();
    let (width, mut y) = (LABELS + BARS + VALUES, TOP);
    let height = TOP + LINE * f64::from(u32::try_from(bars.len()).unwrap_or(u32::MAX)) + 10.0;
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#fff"/>
<text x="10" y="18" font-size="14">Tidings beside its baselines of the same run: 1 is as good, more is better; orange where a target is missed</text>
"##
    );
    for mark in [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0] {
        let x = place(mark);
        let color = if (mark - 1.0_f64).abs() < f64::EPSILON {
            "#333"
        } else {
            "#ddd"
        };
        // Writing to a string does not fail.
        let _written = writeln!(
            svg,
            r##"<line x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{height}" stroke="{color}"/><text x="{x:.1}" y="34" text-anchor="middle" fill="#666">{mark}</text>"##
        );
    }
    for (row, ratio) in bars {
        let (x, one) = (place(ratio), place(1.0));
        let (from, length) = (x.min(one), (x - one).abs().max(1.0));
        let color = if row
            .targets
            .iter()
            .any(|target| row.meets(*target) == Some(false))
        {
            "#d07b2e"
        } else {
            "#2f7fb8"
        };
        let beside = row.baseline.as_ref().map(|baseline| &*baseline.name);
        let beside = beside.unwrap_or_default();
        let label = escape(&format!(
            "{}: {} (beside {beside})",
            row.benchmark, row.name
        ));
        let middle = y + LINE * 0.7;
        let (end, bar, thick) = (LABELS - 10.0, y + 3.0, LINE - 6.0);
        let value = LABELS + BARS + 8.0;
        let _written = writeln!(
            svg,
            r#"<text x="{end}" y="{middle:.1}" text-anchor="end">{label}</text><rect x="{from:.1}" y="{bar:.1}" width="{length:.1}" height="{thick}" fill="{color}"/><text x="{value}" y="{middle:.1}">{ratio:.2}</text>"#
        );
        y += LINE;
    }
    svg.push_str("</svg>\n");
    svg
}

fn place(ratio: f64) -> f64 {
    let share = (ratio.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln();
    LABELS + BARS * share
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_goes_to_the_right_where_ours_is_better() {
        let better = Row::cost("a & b", "bytes", 100.0).beside("raw", 1000.0);
        let svg = draw(&[better]);
        assert!(svg.contains("a &amp; b (beside raw)"));
        assert!(
            svg.contains(r#"<rect x="1060.0" y="43.0" width="200.0""#),
            "{svg}"
        );
        let worse = Row::cost("it", "bytes", 1000.0).beside("raw", 100.0);
        assert!(draw(&[worse]).contains(r#"<rect x="860.0" y="43.0" width="200.0""#));
    }

    #[test]
    fn a_row_without_a_ratio_has_no_bar() {
        assert!(!draw(&[Row::cost("it", "bytes", 1.0)]).contains(": it"));
    }
}
