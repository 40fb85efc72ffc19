//! The course of users over time, drawn as SVG: a line of users, and below it bars of who came (up) and went (down). Words stand
//! beside the drawing and not in it, so that they keep their size on a phone; a table says the same.

use jiff::Timestamp;
use maud::{Markup, html};

use super::parts::{counted, number};
use crate::state::{Course, Point, Step};

const WIDTH: f64 = 720.0;
const LINE: f64 = 140.0;
const BARS: f64 = 60.0;

/// The course as a drawing with its table; nothing where there is nothing to draw.
pub(super) fn drawn(course: &Course) -> Markup {
    let (Some(first), Some(last)) = (course.points.first(), course.points.last()) else {
        return html! { p class="faint" { "Nobody was seen yet." } };
    };
    if course.points.len() < 2 {
        return html! { p class="faint" { (counted(last.users, "user")) " so far; the course begins with the next step of time." } };
    }
    let most = course.points.iter().map(|point| point.users).max().unwrap_or(0);
    let least = course.points.iter().map(|point| point.users).min().unwrap_or(0);
    // A scale from zero hides what matters in a large workspace, so it begins below the least, on a round number.
    let (floor, ceiling) = scale(least, most);
    // Who was there at the first look did not come then.
    let later = course.points.get(1..).unwrap_or_default();
    let arrived: u64 = later.iter().map(|point| point.arrived).sum();
    let left: u64 = later.iter().map(|point| point.left).sum();
    let steps = match course.step {
        Step::Minute => "minute",
        Step::Hour => "hour",
        Step::Day => "day",
    };
    let summary = format!(
        "From {} to {} users between {} and {}: {} came, {} went. At most {}, at least {}.",
        number(first.users),
        number(last.users),
        label(course.step, first.at),
        label(course.step, last.at),
        number(arrived),
        number(left),
        number(most),
        number(least),
    );
    html! {
        figure class="course" {
            div class="plot" {
                p class="scale" aria-hidden="true" { span { (number(ceiling)) } span { (number(floor)) } }
                svg viewBox={ "0 0 " (WIDTH) " " (LINE + BARS) } preserveAspectRatio="none" role="img"
                    aria-labelledby="course-title course-desc" {
                    title id="course-title" { "Users over time" }
                    desc id="course-desc" { (summary) }
                    path class="area" d=(area(&course.points, floor, ceiling)) {}
                    path class="line" d=(line(&course.points, floor, ceiling)) {}
                    path class="axis" d={ "M0 " (LINE + BARS / 2.0) "H" (WIDTH) } {}
                    path class="came" d=(bars(&course.points, true)) {}
                    path class="went" d=(bars(&course.points, false)) {}
                }
            }
            p class="ends" aria-hidden="true" { span { (label(course.step, first.at)) } span { (label(course.step, last.at)) } }
            figcaption {
                "Users, and who " span class="key came" { "came" } " and " span class="key went" { "went" } " in each " (steps) ". " (summary)
            }
        }
        details id="course-table" {
            summary { "The same as a table" }
            (table(course))
        }
    }
}

/// Only the steps in which something happened, and both ends: the newest first.
fn table(course: &Course) -> Markup {
    let ends = course.points.len() - 1;
    let told = course
        .points
        .iter()
        .enumerate()
        .filter(|(index, point)| *index == 0 || *index == ends || point.arrived + point.left > 0)
        .map(|(_, point)| point)
        .rev();
    super::parts::table(
        "course-rows",
        "Users over time",
        "plain",
        html! {
            thead { tr {
                th scope="col" { "From (UTC)" }
                th scope="col" class="number" { "Users" }
                th scope="col" class="number" { "Came" }
                th scope="col" class="number" { "Went" }
            } }
            tbody {
                @for point in told {
                    tr {
                        th scope="row" { (label(course.step, point.at)) }
                        td class="number" { (number(point.users)) }
                        td class="number" { (number(point.arrived)) }
                        td class="number" { (number(point.left)) }
                    }
                }
            }
        },
    )
}

fn label(step: Step, at: Timestamp) -> String {
    let format = match step {
        Step::Day => "%Y-%m-%d",
        Step::Hour | Step::Minute => "%Y-%m-%d %H:%M",
    };
    at.strftime(format).to_string()
}

/// Round ends of a scale that holds both numbers.
fn scale(least: u64, most: u64) -> (u64, u64) {
    let span = (most - least).max(most / 50).max(4);
    let mut unit = 1;
    while unit * 10 <= span {
        unit *= 10;
    }
    let floor = least.saturating_sub(span / 4) / unit * unit;
    let ceiling = (most + unit) / unit * unit;
    (floor, ceiling)
}

fn at(index: usize, points: usize) -> f64 {
    WIDTH * index as f64 / points as f64
}

fn height(users: u64, floor: u64, ceiling: u64) -> f64 {
    let share = users.saturating_sub(floor) as f64 / (ceiling - floor).max(1) as f64;
    LINE - share * (LINE - 6.0)
}

/// A line in steps: a number of users holds for as long as its step.
fn line(points: &[Point], floor: u64, ceiling: u64) -> String {
    let mut path = String::new();
    for (index, point) in points.iter().enumerate() {
        let (x, y) = (at(index, points.len()), height(point.users, floor, ceiling));
        if index == 0 {
            path.push_str(&format!("M{x:.1} {y:.1}"));
        } else {
            path.push_str(&format!("V{y:.1}"));
        }
        path.push_str(&format!("H{:.1}", at(index + 1, points.len())));
    }
    path
}

fn area(points: &[Point], floor: u64, ceiling: u64) -> String {
    format!("{}V{LINE}H0Z", line(points, floor, ceiling))
}

/// Bars up for who came, or down for who went. The first step is left out: what a first collection brought would dwarf all that
/// comes later, and nobody came that day. Of the rest, few beside many stay visible as square roots; the table has the numbers.
fn bars(points: &[Point], came: bool) -> String {
    let middle = LINE + BARS / 2.0;
    let most = points
        .iter()
        .skip(1)
        .map(|point| point.arrived.max(point.left))
        .max()
        .unwrap_or(0)
        .max(1) as f64;
    let width = (WIDTH / points.len() as f64 * 0.7).min(24.0);
    let mut path = String::new();
    for (index, point) in points.iter().enumerate().skip(1) {
        let count = if came { point.arrived } else { point.left };
        if count == 0 {
            continue;
        }
        let length = ((count as f64 / most).sqrt() * (BARS / 2.0 - 2.0)).max(2.0);
        let x = at(index, points.len()) + (WIDTH / points.len() as f64 - width) / 2.0;
        let y = if came { middle - length } else { middle };
        path.push_str(&format!("M{x:.1} {y:.1}h{width:.1}v{length:.1}h-{width:.1}z"));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_hold_what_they_show_and_end_on_round_numbers() {
        for (least, most) in [
            (0, 0),
            (0, 1),
            (57, 61),
            (49_990, 50_010),
            (0, 50_000),
            (7, 7),
            (999, 1001),
        ] {
            let (floor, ceiling) = scale(least, most);
            assert!(floor <= least && ceiling > most, "{least} {most}: {floor} {ceiling}");
        }
        assert_eq!(scale(49_990, 50_010), (49_000, 51_000));
    }
}
