//! The whole machine: every state, everything that may come to it.

use std::collections::HashSet;

use super::*;

const AMOUNT: i64 = 1250;
const PART: i64 = 500;
const POINTS: i64 = 300;
const PART_OF_POINTS: i64 = 100;
const UNITS_PER_POINT: i64 = 100;

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn payment(state: State) -> Payment {
    paid_with(state, AMOUNT, 0)
}

/// In that state, of so much money and so many points.
fn paid_with(state: State, amount: i64, points: i64) -> Payment {
    let purchase = format!("ord_{}", "0".repeat(26));
    let method = Method {
        kind: MethodKind::Card,
        token: "sandbox_ok".to_owned(),
    };
    let is_back = matches!(
        state,
        State::Refunded(_) | State::Failed(_) | State::Voided | State::Expired
    );
    let bill = Bill {
        purchase: Purchase::parse(&purchase).expect("a purchase"),
        user: Id::generate(),
        method,
        amount: Money::new(amount, "JPY".parse().expect("a currency")),
        points,
        expires_at: now(),
    };
    Payment {
        state,
        points: Used {
            all: points,
            back: if is_back { points } else { 0 },
        },
        ..Payment::new(bill, UNITS_PER_POINT, now())
    }
}

fn taken(refunded: i64, refunding: i64) -> Taken {
    Taken {
        captured: AMOUNT,
        refunded,
        refunding,
    }
}

fn action() -> NextAction {
    NextAction::Redirect {
        url: "https://bank.example".to_owned(),
    }
}

fn failure(step: FailedStep) -> State {
    State::Failed(Failure {
        step,
        reason: "card_declined".to_owned(),
    })
}

/// Every state, with every sort of data it may carry.
fn states() -> Vec<State> {
    vec![
        State::Processing,
        State::RequiresAction(action()),
        State::Authorized,
        State::Capturing { queued: 0 },
        State::Capturing { queued: PART },
        State::Voiding { queued: 0 },
        State::Voiding { queued: PART },
        State::Captured(taken(0, 0)),
        State::RefundPending(taken(0, PART)),
        State::RefundPending(taken(0, AMOUNT)),
        State::RefundPending(taken(PART, PART)),
        State::RefundPending(taken(PART, AMOUNT - PART)),
        State::RefundPending(taken(AMOUNT - PART, PART)),
        State::PartiallyRefunded(taken(PART, 0)),
        State::Refunded(taken(AMOUNT, 0)),
        failure(FailedStep::Authorize),
        failure(FailedStep::Capture),
        State::Voided,
        State::Expired,
    ]
}

fn truths() -> Vec<Truth> {
    vec![
        Truth::Pending,
        Truth::RequiresAction(action()),
        Truth::Authorized,
        Truth::Captured,
        Truth::Failed {
            reason: "card_declined".to_owned(),
        },
        Truth::Voided,
    ]
}

fn refund(amount: i64) -> Refund {
    Refund {
        id: Id::generate(),
        amount,
        points: 0,
        reason: String::new(),
    }
}

/// Payments in every state: of money, of money and points, of points alone.
fn payments() -> Vec<Payment> {
    let mut payments: Vec<Payment> = states().into_iter().map(payment).collect();
    payments.extend((states().into_iter()).map(|state| paid_with(state, AMOUNT, POINTS)));
    let money_back = State::PartiallyRefunded(taken(AMOUNT, 0));
    payments.push(paid_with(money_back, AMOUNT, POINTS));
    let mut capturing = paid_with(State::Capturing { queued: 0 }, AMOUNT, POINTS);
    capturing.points.back = PART_OF_POINTS;
    payments.push(capturing);
    let nothing = Taken::default();
    let of_points = [
        State::Processing,
        State::Authorized,
        State::Captured(nothing),
        State::PartiallyRefunded(nothing),
        State::Voiding { queued: 0 },
    ];
    payments.extend((of_points.into_iter()).map(|state| paid_with(state, 0, POINTS)));
    payments
}

type Input = Box<dyn Fn(Payment) -> Result<Change, Illegal>>;

fn inputs() -> Vec<(String, Input)> {
    let mut inputs: Vec<(String, Input)> = vec![
        ("void".to_owned(), Box::new(|p: Payment| p.void(now()))),
        (
            "capture unknown".to_owned(),
            Box::new(|p: Payment| p.capture_unknown(now())),
        ),
    ];
    for points in [PART_OF_POINTS, POINTS] {
        inputs.push((
            format!("refund of {points} points"),
            Box::new(move |p: Payment| {
                let refund = Refund {
                    points,
                    ..refund(0)
                };
                p.refund(refund, now())
            }),
        ));
    }
    for amount in [PART, AMOUNT] {
        inputs.push((
            format!("refund {amount}"),
            Box::new(move |p: Payment| p.refund(refund(amount), now())),
        ));
        for truth in [
            RefundTruth::Done,
            RefundTruth::Refused {
                reason: "no".to_owned(),
            },
        ] {
            inputs.push((
                format!("refund of {amount} {truth:?}"),
                Box::new(move |p: Payment| match p.state {
                    // Only what was promised back can be over.
                    State::RefundPending(taken) if taken.refunding < amount => Ok(p.stay()),
                    _ => p.settle_refund(amount, &truth, now()),
                }),
            ));
        }
    }
    for truth in truths() {
        inputs.push((
            format!("{truth:?}"),
            Box::new(move |p: Payment| p.learn(truth.clone(), now())),
        ));
    }
    inputs
}

#[test]
fn the_machine_makes_all_the_moves_of_the_table_and_no_other() {
    let table: HashSet<(Status, Status)> = MOVES.iter().map(|(from, _, to)| (*from, *to)).collect();
    let mut made = HashSet::new();
    for before in payments() {
        for (name, input) in inputs() {
            let Ok(change) = input(before.clone()) else {
                continue;
            };
            if change.payment == before {
                continue;
            }
            let step = (before.status(), change.payment.status());
            assert!(table.contains(&step), "{name}: {step:?}");
            assert_eq!(change.payment.version, before.version + 1, "{name}");
            made.insert(step);
        }
    }
    let dead: Vec<_> = table.difference(&made).collect();
    assert!(dead.is_empty(), "moves that nothing makes: {dead:?}");
}

#[test]
fn points_that_are_used_are_held_spent_or_back_and_none_is_lost_or_made() {
    for before in payments() {
        for (name, input) in inputs() {
            let Ok(change) = input(before.clone()) else {
                continue;
            };
            let after = &change.payment;
            let (was, is) = (before.lying(), after.lying());
            assert_eq!(is.since(was), change.moved, "{name}: {before:?}");
            let back = after.points.back - before.points.back;
            assert_eq!(change.moved.to_owner(), back, "{name}: {before:?}");
            assert!(back >= 0, "{name}: what was given back is not taken again");
            assert_eq!(is.held + is.spent + after.points.back, before.points.all);
            let unpaid = matches!(
                after.status(),
                Status::Failed | Status::Voided | Status::Expired | Status::Refunded
            );
            assert!(!unpaid || after.points.out() == 0, "{name}: {after:?}");
        }
    }
}

#[test]
fn money_that_comes_after_the_points_went_back_goes_back_too() {
    for state in [
        failure(FailedStep::Authorize),
        State::Expired,
        State::Voided,
    ] {
        for (truth, becomes) in [
            (Truth::Authorized, Status::Voiding),
            (Truth::Captured, Status::RefundPending),
        ] {
            let late = paid_with(state.clone(), AMOUNT, POINTS);
            let learned = late.learn(truth, now()).expect("it is taken in");
            assert_eq!(learned.payment.status(), becomes, "{state:?}");
            assert_eq!(learned.moved, Lying::default(), "{state:?}");
        }
    }
}

#[test]
fn what_the_provider_says_is_always_taken_in_unless_it_contradicts_money_taken() {
    for state in states() {
        for truth in truths() {
            let learned = payment(state.clone()).learn(truth.clone(), now());
            let contradicts = payment(state.clone()).taken().captured > 0
                && matches!(truth, Truth::Failed { .. } | Truth::Voided);
            match learned {
                Ok(change) => {
                    assert!(!contradicts, "{state:?} {truth:?}");
                    let again = change.payment.clone().learn(truth.clone(), now());
                    let again = again.expect("what was true is true");
                    assert!(again.news.is_empty(), "{state:?} {truth:?} told twice");
                }
                Err(illegal) => {
                    assert!(contradicts, "{state:?} {truth:?}: {illegal}");
                    assert!(matches!(illegal, Illegal::Contradiction { .. }));
                }
            }
        }
    }
}

#[test]
fn every_illegal_command_is_refused_by_name() {
    for state in states() {
        let status = payment(state.clone()).status();
        let capture = payment(state.clone()).wants_capture();
        let may_capture = match &state {
            State::Failed(failure) => failure.step == FailedStep::Capture,
            _ => !matches!(
                status,
                Status::Processing
                    | Status::RequiresAction
                    | Status::Voiding
                    | Status::Voided
                    | Status::Expired
            ),
        };
        assert_eq!(capture.is_ok(), may_capture, "capture of {state:?}");

        let refunded = payment(state.clone()).refund(refund(1), now());
        let may_refund =
            payment(state.clone()).taken().left() > 0 || matches!(state, State::Capturing { .. });
        assert_eq!(refunded.is_ok(), may_refund, "refund of {state:?}");

        let settled = payment(state.clone()).settle_refund(1, &RefundTruth::Done, now());
        assert_eq!(
            settled.is_ok(),
            status == Status::RefundPending,
            "{state:?}"
        );

        // Undoing is never refused, and undoing twice is undoing once.
        let undone = payment(state.clone()).void(now()).expect("always");
        let again = undone.payment.clone().void(now()).expect("always");
        assert_eq!(again.payment, undone.payment, "{state:?}");
        assert_eq!(again.refund, None, "{state:?}");
    }
    assert!(matches!(
        payment(State::Captured(taken(0, 0))).refund(refund(0), now()),
        Err(Illegal::RefundAmount(0))
    ));
}

#[test]
fn what_is_promised_back_never_exceeds_what_was_captured() {
    for state in states() {
        let before = payment(state.clone());
        let left = before.taken().left();
        if before.taken().captured > 0 {
            let refused = before.refund(refund(left + 1), now());
            assert!(
                matches!(refused, Err(Illegal::RefundExceedsCaptured { .. })),
                "{state:?}"
            );
        }
    }
    let queued = payment(State::Capturing { queued: PART });
    assert!(queued.refund(refund(AMOUNT - PART + 1), now()).is_err());
}

#[test]
fn the_readme_shows_the_machine_as_it_is() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    holdfast_testkit::assert_states_drawn(readme, &Status::Processing, MOVES);
}
