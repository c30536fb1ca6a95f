//! Where seats are that came without positions: rows around a stage, as halls and stadiums have them.
//!
//! The stage is at the origin. Up to [`HALL_MAX_SECTIONS`] seated sections stand one behind another before it, as stalls,
//! circle and balcony do. More of them stand side by side in rings around it, as the blocks of a stadium do. The same
//! sections always get the same places.

use std::{collections::BTreeMap, f64::consts::PI};

use super::seating::{Places, Point, Row, Section, Shape};

/// From the middle of the stage to the nearest row, in centimetres.
const STAGE_CM: f64 = 800.0;
const SEAT_CM: f64 = 55.0;
const ROW_CM: f64 = 95.0;
/// Between sections side by side.
const AISLE_CM: f64 = 150.0;
/// Between a section and the one behind it.
const GANGWAY_CM: f64 = 300.0;
const HALL_MAX_SECTIONS: usize = 5;
const RING_MAX_SECTIONS: usize = 24;
/// How far rows reach around the stage: of a hall, and of a ring of a stadium.
const HALL_ARC: f64 = PI * 2.0 / 3.0;
const RING_ARC: f64 = PI * 16.0 / 9.0;

/// Where a section is.
struct Block {
    /// Of its front row, in centimetres.
    radius: f64,
    /// Of its middle, from straight before the stage to the right on the map, in radians.
    axis: f64,
}

/// Gives positions to the rows that have none. Rows that have theirs keep them, but count where others are put.
pub(super) fn lay_out(sections: &mut [Section]) {
    let is_laid = |row: &Row| row.points.len() == row.numbers.len();
    if sections.iter().flat_map(|it| it.places.rows()).all(is_laid) {
        return;
    }
    let seated = sections
        .iter_mut()
        .filter_map(|section| match &mut section.places {
            Places::Seated { shape, rows, .. } if !rows.is_empty() => Some((*shape, rows)),
            _ => None,
        });
    let mut seated: Vec<(Shape, &mut Vec<Row>)> = seated.collect();
    let widths: Vec<f64> = seated.iter().map(|(_, rows)| width(rows)).collect();
    let depths: Vec<f64> = seated.iter().map(|(_, rows)| depth(rows)).collect();
    for ((shape, rows), block) in seated.iter_mut().zip(blocks(&widths, &depths)) {
        if !rows.iter().all(is_laid) {
            seat(rows, *shape, &block);
        }
    }
}

fn blocks(widths: &[f64], depths: &[f64]) -> Vec<Block> {
    let (in_a_ring, arc) = if widths.len() <= HALL_MAX_SECTIONS {
        (1, HALL_ARC)
    } else {
        let rings = widths.len().div_ceil(RING_MAX_SECTIONS);
        (widths.len().div_ceil(rings), RING_ARC)
    };
    let mut blocks = Vec::with_capacity(widths.len());
    let mut nearest = STAGE_CM;
    for (widths, depths) in widths.chunks(in_a_ring).zip(depths.chunks(in_a_ring)) {
        let whole: f64 = widths.iter().sum();
        let radius = nearest.max(whole / arc);
        let mut left = -whole / 2.0;
        for width in widths {
            let axis = (left + width / 2.0) / radius;
            blocks.push(Block { radius, axis });
            left += width;
        }
        nearest =
            radius + depths.iter().fold(0.0, |deepest: f64, it| deepest.max(*it)) + GANGWAY_CM;
    }
    blocks
}

/// Puts the seats of each row side by side, in the middle of the block; parts of one row stand in one line.
fn seat(rows: &mut [Row], shape: Shape, block: &Block) {
    let lines = lines(rows);
    let mut seated: BTreeMap<usize, usize> = BTreeMap::new();
    for row in rows {
        let (line, of_line) = lines[&row.label];
        let before = seated.entry(line).or_default();
        let radius = block.radius + line as f64 * ROW_CM;
        let point = |place: usize| {
            let middle = (of_line - 1) as f64 / 2.0;
            let aside = ((*before + place) as f64 - middle) * SEAT_CM;
            match shape {
                Shape::Curved => {
                    let angle = block.axis + aside / radius;
                    rounded(radius * angle.sin(), radius * angle.cos())
                }
                Shape::Straight => {
                    let (sin, cos) = block.axis.sin_cos();
                    rounded(radius * sin + aside * cos, radius * cos - aside * sin)
                }
            }
        };
        row.points = (0..row.numbers.len()).map(point).collect();
        *before += row.numbers.len();
    }
}

/// Of each row which one it is, from the front, and how many seats its parts have.
fn lines(rows: &[Row]) -> BTreeMap<String, (usize, usize)> {
    let mut lines: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for row in rows {
        let next = lines.len();
        let line = lines.entry(row.label.clone()).or_insert((next, 0));
        line.1 += row.numbers.len();
    }
    lines
}

fn width(rows: &[Row]) -> f64 {
    let longest = lines(rows).into_values().map(|(_, seats)| seats).max();
    longest.unwrap_or_default() as f64 * SEAT_CM + AISLE_CM
}

fn depth(rows: &[Row]) -> f64 {
    lines(rows).len() as f64 * ROW_CM
}

fn rounded(x: f64, y: f64) -> Point {
    Point {
        x: x.round() as i32,
        y: y.round() as i32,
    }
}
