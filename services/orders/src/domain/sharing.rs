//! Sharing out money to the last unit: over lines, and over time. `docs/PRICING.md` has the tables.

use std::cmp::Reverse;

use holdfast_kernel::Money;

/// Shares out `amount` over lines, of whose sum it is no more, by largest remainder: each line gets its part rounded down,
/// and what is left goes one unit each to those with the largest remainders, among equals to the earlier line.
pub(super) fn shared_out(amount: i64, lines: &[i64]) -> Vec<i64> {
    let sum: i128 = lines.iter().copied().map(i128::from).sum();
    if sum == 0 {
        return vec![0; lines.len()];
    }
    let parts = lines
        .iter()
        .map(|&line| i128::from(amount) * i128::from(line));
    let (mut shares, remainders): (Vec<i64>, Vec<i128>) = parts
        .map(|part| {
            let share = i64::try_from(part / sum).expect("a share of a line is no more than it");
            (share, part % sum)
        })
        .unzip();
    let left = amount - shares.iter().sum::<i64>();
    let mut places: Vec<usize> = (0..lines.len()).collect();
    places.sort_by_key(|&place| Reverse(remainders[place]));
    // Less than one unit is left of each line that has a remainder.
    for &place in places.iter().zip(0..left).map(|(place, _)| place) {
        shares[place] += 1;
    }
    shares
}

/// What of `whole` has been handed out after `parts` of `of` parts, rounded down. A step hands out the difference, so the
/// last one ends at the whole, in whichever steps it was reached.
pub(super) fn handed_out(whole: Money, parts: i64, of: i64) -> Money {
    let amount = i128::from(whole.amount) * i128::from(parts) / i128::from(of);
    let amount = i64::try_from(amount).expect("parts of a whole are no more than it");
    Money::new(amount, whole.currency)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yen(amount: i64) -> Money {
        Money::new(amount, "JPY".parse().expect("a currency"))
    }

    /// The table of `docs/PRICING.md` under "Shares", over lines.
    #[test]
    fn an_amount_is_shared_out_over_lines_by_largest_remainder() {
        for (amount, lines, want) in [
            (100, &[100, 100, 100][..], &[34, 33, 33][..]),
            (100, &[999, 1], &[100, 0]),
            (100, &[50, 30, 20, 0], &[50, 30, 20, 0]),
            (0, &[5, 5], &[0, 0]),
            (0, &[0, 0], &[0, 0]),
            (10, &[5, 0, 5], &[5, 0, 5]),
            (i64::MAX, &[i64::MAX - 1, 1], &[i64::MAX - 1, 1]),
        ] {
            assert_eq!(shared_out(amount, lines), want, "{amount} over {lines:?}");
        }
    }

    #[test]
    fn no_line_is_given_more_than_it_is_and_nothing_is_left_over() {
        for lines in [vec![1, 1, 1], vec![7, 3, 2, 9], vec![0, 1, 1_000], vec![13]] {
            for amount in 0..=lines.iter().sum::<i64>() {
                let shares = shared_out(amount, &lines);
                assert_eq!(shares.iter().sum::<i64>(), amount, "{lines:?}");
                let fits = shares.iter().zip(&lines).all(|(share, line)| share <= line);
                assert!(fits, "{amount} over {lines:?} gives {shares:?}");
            }
        }
    }

    /// The table of `docs/PRICING.md` under "Shares", over time.
    #[test]
    fn a_whole_is_handed_out_by_running_total_whatever_the_steps() {
        for (whole, steps, want) in [
            (100, &[1, 1, 1][..], &[33, 33, 34][..]),
            (100, &[2, 1], &[66, 34]),
            (1_050, &[1, 1], &[525, 525]),
            (
                i64::MAX,
                &[1, 1_000_000 - 1],
                &[9_223_372_036_854, i64::MAX - 9_223_372_036_854],
            ),
        ] {
            let of = steps.iter().sum();
            let mut parts = 0;
            let handed: Vec<i64> = (steps.iter())
                .map(|step| {
                    let before = handed_out(yen(whole), parts, of).amount;
                    parts += step;
                    handed_out(yen(whole), parts, of).amount - before
                })
                .collect();
            assert_eq!(handed, want, "{whole} in {steps:?}");
        }
    }
}
