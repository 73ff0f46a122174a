//! The rows as a table in Markdown.

use std::fmt::Write;

use tidings_bench::{Figure, Row};

const HEADER: [&str; 8] = [
    "benchmark",
    "what",
    "ours",
    "p99",
    "baseline",
    "ratio",
    "target",
    "and",
];

pub(crate) fn draw(rows: &[Row]) -> String {
    let mut lines = vec![HEADER.map(str::to_owned)];
    lines.push(HEADER.map(|_| "---".to_owned()));
    lines.extend(rows.iter().map(cells));
    let mut text = String::new();
    for line in lines {
        // Writing to a string does not fail.
        let _written = writeln!(text, "| {} |", line.join(" | "));
    }
    text
}

fn cells(row: &Row) -> [String; 8] {
    let millis = |p99: f64| format!("{} ms", Figure::from(p99));
    let baseline = row
        .baseline
        .as_ref()
        .map(|baseline| match &baseline.figure {
            Ok(figure) => {
                let p99 = figure.p99_ms.map(|p99| format!(", p99 {}", millis(p99)));
                format!("{}: {figure}{}", baseline.name, p99.unwrap_or_default())
            }
            Err(reason) => format!("{}: **{reason}**", baseline.name),
        });
    let targets = row.targets.iter().map(|target| match row.meets(*target) {
        Some(true) => format!("{target}: met"),
        Some(false) => format!("{target}: **missed**"),
        None => format!("{target}: unknown"),
    });
    [
        format!("`{}`", row.benchmark),
        row.name.clone(),
        format!("{} {}", row.ours, row.unit),
        row.ours.p99_ms.map(millis).unwrap_or_default(),
        baseline.unwrap_or_default(),
        row.ratio()
            .map(|ratio| format!("{ratio:.2}"))
            .unwrap_or_default(),
        targets.collect::<Vec<_>>().join(", "),
        row.note.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_bench::Target;

    #[test]
    fn a_row_has_its_baseline_ratio_and_targets() {
        let mut row = Row::cost("a stream", "bytes", 2000.0)
            .beside("durable-streams", 1000.0)
            .target(Target::AtMost(900.0));
        "idle".clone_into(&mut row.benchmark);
        let missing = row
            .clone()
            .beside_nothing("durable-streams", "not installed");
        let table = draw(&[row, missing]);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(
            lines[2],
            "| `idle` | a stream | 2,000 bytes |  | durable-streams: 1,000 | 0.50 | ≤ 900: **missed** |  |"
        );
        assert_eq!(
            lines[3],
            "| `idle` | a stream | 2,000 bytes |  | durable-streams: **not installed** |  | ≤ 900: **missed** |  |"
        );
    }
}
