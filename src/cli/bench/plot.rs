//! Draws measured lines as an SVG file that needs nothing else.

use std::fmt::Write;

use super::super::output::{count_text, size_text};

/// What to draw.
#[derive(Debug)]
pub(super) struct Figure {
    pub(super) title: String,
    pub(super) x_label: &'static str,
    pub(super) y_label: &'static str,
    pub(super) lines: Vec<Line>,
}

/// Points that belong together.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    /// A limit is dashed.
    pub(super) limit: bool,
    pub(super) points: Vec<(u64, f64)>,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 270.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 70.0;
/// Colours that people with colour blindness tell apart (Okabe and Ito).
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000",
];

/// The figure as SVG. The horizontal axis has a place for each value, in order: sweeps double.
pub(super) fn draw(figure: &Figure) -> String {
    let mut places: Vec<u64> = points(figure).map(|(x, _)| x).collect();
    places.sort_unstable();
    places.dedup();
    let top = round_up(points(figure).map(|(_, y)| y).fold(0.0, f64::max));
    let width = WIDTH - LEFT - RIGHT;
    let height = HEIGHT - TOP - BOTTOM;
    let x_of = |value: u64| {
        let place = places.binary_search(&value).unwrap_or(0) as f64;
        LEFT + width * (place + 0.5) / places.len().max(1) as f64
    };
    let y_of = |value: f64| TOP + height * (1.0 - value / top);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut svg, WIDTH / 2.0, 26.0, "middle", &figure.title);
    for step in 0..=5 {
        let value = top * f64::from(step) / 5.0;
        let y = y_of(value);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>",
            LEFT + width
        );
        text(&mut svg, LEFT - 8.0, y + 4.0, "end", &value_text(value));
    }
    // At most a dozen labels, or they run into each other.
    let every = places.len().div_ceil(12).max(1);
    for place in places.iter().step_by(every) {
        text(
            &mut svg,
            x_of(*place),
            HEIGHT - BOTTOM + 20.0,
            "middle",
            &size_text(*place),
        );
    }
    let middle = LEFT + width / 2.0;
    text(&mut svg, middle, HEIGHT - 22.0, "middle", figure.x_label);
    text(&mut svg, LEFT, TOP - 10.0, "middle", figure.y_label);
    for (index, line) in figure.lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let dash = if line.limit {
            " stroke-dasharray=\"6 4\""
        } else {
            ""
        };
        let mut sorted = line.points.clone();
        sorted.sort_by_key(|(x, _)| *x);
        let path: Vec<String> = sorted
            .iter()
            .map(|(x, y)| format!("{:.1},{:.1}", x_of(*x), y_of(*y)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash} \
             points=\"{}\"/>",
            path.join(" ")
        );
        for (x, y) in &sorted {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"><title>{}: {} at \
                 {}</title></circle>",
                x_of(*x),
                y_of(*y),
                escape(&line.name),
                value_text(*y),
                size_text(*x)
            );
        }
        let (x, y) = (WIDTH - RIGHT + 20.0, TOP + 10.0 + 20.0 * index as f64);
        let _ = writeln!(
            svg,
            "<line x1=\"{x}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"{colour}\" \
             stroke-width=\"2\"{dash}/>",
            x + 24.0
        );
        text(&mut svg, x + 30.0, y + 4.0, "start", &line.name);
    }
    svg.push_str("</svg>\n");
    svg
}

fn points(figure: &Figure) -> impl Iterator<Item = (u64, f64)> {
    figure
        .lines
        .iter()
        .flat_map(|line| line.points.iter().copied())
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, content: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
        escape(content)
    );
}

fn value_text(value: f64) -> String {
    if value < 1000.0 {
        let text = format!("{value:.3}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    count_text(value)
}

/// The next of 1, 2, 2.5, 5 and 10 times a power of ten.
fn round_up(value: f64) -> f64 {
    if !value.is_finite() || value <= 0.0 {
        return 1.0;
    }
    let unit = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0];
    let step = steps.into_iter().find(|s| s * unit >= value * 0.999_999);
    step.unwrap_or(10.0) * unit
}

fn escape(content: &str) -> String {
    content
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_on_round_numbers() {
        for (value, top) in [
            (0.0, 1.0),
            (0.03, 0.05),
            (1.0, 1.0),
            (2.1, 2.5),
            (7.0, 10.0),
        ] {
            assert!((round_up(value) - top).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn every_point_lies_inside_and_names_are_escaped() {
        let svg = draw(&Figure {
            title: "a < b & c".to_owned(),
            x_label: "block, bytes",
            y_label: "GB/s",
            lines: vec![
                Line {
                    name: "auto".to_owned(),
                    limit: false,
                    points: vec![(8192, 3.0), (4096, 1.5)],
                },
                Line {
                    name: "limit: fio".to_owned(),
                    limit: true,
                    points: vec![(4096, 2.0)],
                },
            ],
        });
        assert!(svg.contains("a &lt; b &amp; c") && svg.contains("stroke-dasharray"));
        assert_eq!(svg.matches("<circle").count(), 3);
        for part in svg.split("cy=\"").skip(1) {
            let y: f64 = part[..part.find('"').unwrap()].parse().unwrap();
            assert!((TOP..=HEIGHT - BOTTOM).contains(&y), "{y}");
        }
        assert_eq!(
            draw(&Figure {
                title: String::new(),
                x_label: "",
                y_label: "",
                lines: vec![]
            })
            .matches("<circle")
            .count(),
            0
        );
    }
}
