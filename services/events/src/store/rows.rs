//! Rows of seats as the database keeps them: small, for a stadium is read in one piece.
//!
//! Seats are numbered from somewhere on, mostly, and stand a step from their neighbour: of most seats two small numbers are
//! written. Fields are only ever added, as in the contracts.

use prost::Message;

use crate::domain::{Point, Row};

#[derive(Clone, PartialEq, Message)]
struct Rows {
    #[prost(message, repeated, tag = "1")]
    rows: Vec<StoredRow>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredRow {
    #[prost(string, tag = "1")]
    label: String,
    #[prost(string, optional, tag = "2")]
    tier: Option<String>,
    /// The number of the first seat, where they are numbered one by one; then `numbers` is empty.
    #[prost(uint32, optional, tag = "3")]
    first: Option<u32>,
    #[prost(string, repeated, tag = "4")]
    numbers: Vec<String>,
    /// Of the first seat its place, of each other one the way from the seat before.
    #[prost(sint32, repeated, tag = "5")]
    x: Vec<i32>,
    #[prost(sint32, repeated, tag = "6")]
    y: Vec<i32>,
}

/// Rows that were laid out, as bytes.
pub(super) fn write(rows: &[Row]) -> Vec<u8> {
    let rows = rows.iter().map(|row| {
        let first = numbered_from(&row.numbers);
        StoredRow {
            label: row.label.clone(),
            tier: row.tier.clone(),
            first,
            numbers: match first {
                Some(_) => Vec::new(),
                None => row.numbers.clone(),
            },
            x: steps(row.points.iter().map(|point| point.x)),
            y: steps(row.points.iter().map(|point| point.y)),
        }
    });
    Rows {
        rows: rows.collect(),
    }
    .encode_to_vec()
}

/// The rows that [`write`] wrote; none of what it did not.
pub(super) fn read(bytes: &[u8]) -> Option<Vec<Row>> {
    let stored = Rows::decode(bytes).ok()?;
    let rows = stored.rows.into_iter().map(|row| {
        let (x, y) = (places(row.x)?, places(row.y)?);
        let numbers: Vec<String> = match row.first {
            Some(first) => (u64::from(first)..)
                .take(x.len())
                .map(|it| it.to_string())
                .collect(),
            None => row.numbers,
        };
        if numbers.len() != x.len() || numbers.len() != y.len() {
            return None;
        }
        Some(Row {
            label: row.label,
            tier: row.tier,
            numbers,
            points: x.into_iter().zip(y).map(|(x, y)| Point { x, y }).collect(),
        })
    });
    rows.collect()
}

/// The number from which these go on one by one, written as numbers are.
fn numbered_from(numbers: &[String]) -> Option<u32> {
    let first: u32 = numbers.first()?.parse().ok()?;
    let wanted = (u64::from(first)..).take(numbers.len());
    let is_so = wanted
        .zip(numbers)
        .all(|(wanted, number)| wanted.to_string() == *number);
    is_so.then_some(first)
}

fn steps(places: impl Iterator<Item = i32>) -> Vec<i32> {
    let mut last = 0;
    places
        .map(|place| place - std::mem::replace(&mut last, place))
        .collect()
}

fn places(steps: Vec<i32>) -> Option<Vec<i32>> {
    let mut place = 0_i32;
    let walk = steps.into_iter().map(|step| {
        place = place.checked_add(step)?;
        Some(place)
    });
    walk.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(numbers: &[&str], points: &[(i32, i32)]) -> Row {
        Row {
            label: "A".to_owned(),
            tier: None,
            numbers: numbers.iter().map(|number| (*number).to_owned()).collect(),
            points: points.iter().map(|&(x, y)| Point { x, y }).collect(),
        }
    }

    #[test]
    fn rows_read_back_as_they_were_written() {
        let rows = vec![
            row(&["1", "2", "3"], &[(-55, 800), (0, 805), (55, 800)]),
            row(
                &["7", "8"],
                &[(1_000_000, -1_000_000), (-1_000_000, 1_000_000)],
            ),
            row(&["01", "02"], &[(0, 0), (1, 1)]),
            row(&["1", "2a"], &[(0, 0), (1, 1)]),
            Row {
                tier: Some("best".to_owned()),
                ..row(&["4294967295"], &[(3, 4)])
            },
        ];
        assert_eq!(read(&write(&rows)), Some(rows));
        assert_eq!(read(&write(&[])), Some(Vec::new()));
    }

    #[test]
    fn what_was_never_written_is_not_read() {
        assert_eq!(read(b"\xff"), None);
        let mut odd = Rows::decode(write(&[row(&["1", "2"], &[(0, 0), (1, 1)])]).as_slice());
        odd.as_mut().expect("written").rows[0].y.pop();
        assert_eq!(read(&odd.expect("written").encode_to_vec()), None);
    }

    #[test]
    fn most_seats_take_two_bytes() {
        let seats: Vec<(i32, i32)> = (0..1_000).map(|at| (at * 55, 800 + at % 3)).collect();
        let numbers: Vec<String> = (1..=1_000).map(|number| number.to_string()).collect();
        let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
        let bytes = write(&[row(&numbers, &seats)]).len();
        assert!(bytes < 3_100, "{bytes} bytes");
    }
}
