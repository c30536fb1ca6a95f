//! Reviews, how they may change, and what the published ones of a product come to.

use holdfast_kernel::{Id, Timestamp, id};

use crate::error::ReviewsError;

/// What somebody says of a product they bought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Review {
    pub(crate) id: Id<id::Review>,
    pub(crate) product: Id<id::Product>,
    pub(crate) author: Id<id::User>,
    pub(crate) opinion: Opinion,
    pub(crate) status: Status,
    pub(crate) created_at: Timestamp,
    /// When its author last changed it.
    pub(crate) written_at: Timestamp,
    /// Rises by one with every change.
    pub(crate) version: i64,
}

/// What a review says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opinion {
    pub(crate) rating: Rating,
    pub(crate) title: String,
    pub(crate) text: String,
}

/// What an author says otherwise; what is `None` stays.
#[derive(Debug, Default)]
pub(crate) struct Rewording {
    pub(crate) rating: Option<Rating>,
    pub(crate) title: Option<String>,
    pub(crate) text: Option<String>,
}

/// One to five stars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rating(u8);

/// Who sees a review.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Status {
    /// Everybody.
    Published,
    /// Its author and staff. It keeps its place: its author writes no other one.
    Removed { reason: String },
    /// Nobody: its author took it back, and what it said is gone.
    Withdrawn,
}

/// What a moderator wants of a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Publish,
    Remove,
}

/// A product as far as reviews of it go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Product {
    pub(crate) id: Id<id::Product>,
    pub(crate) listed: Listed,
    /// How many published reviews give 1, 2, 3, 4 and 5.
    pub(crate) counts: [i64; RATINGS],
    /// Rises by one whenever what is published changes; each version is announced.
    pub(crate) version: i64,
}

/// How catalog lists a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listed {
    Draft,
    Published,
    Deleted,
}

/// As many ratings as there are.
pub(crate) const RATINGS: usize = 5;
pub(crate) const TITLE_MAX_CHARS: usize = 120;
pub(crate) const TEXT_MAX_CHARS: usize = 5_000;
pub(crate) const REASON_MAX_CHARS: usize = 500;

impl Review {
    /// A review that everybody sees.
    pub(crate) fn new(
        id: Id<id::Review>,
        product: Id<id::Product>,
        author: Id<id::User>,
        opinion: Opinion,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            product,
            author,
            opinion,
            status: Status::Published,
            created_at: now,
            written_at: now,
            version: 1,
        }
    }

    /// The rating that counts for the product, if it does.
    pub(crate) fn counted(&self) -> Option<Rating> {
        (self.status == Status::Published).then_some(self.opinion.rating)
    }

    /// Whether its author took it back.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.status == Status::Withdrawn
    }

    /// The review, if its author looked at this version of it; `None` is whatever stands.
    pub(crate) fn at_version(self, expected: Option<i64>) -> Result<Self, ReviewsError> {
        match expected {
            Some(expected) if expected != self.version => Err(ReviewsError::ReviewChanged {
                expected,
                actual: self.version,
            }),
            _ => Ok(self),
        }
    }

    /// The review as its author now words it; the same words change nothing. Who sees it stays.
    pub(crate) fn reword(self, wanted: Rewording, now: Timestamp) -> Result<Self, ReviewsError> {
        let opinion = Opinion {
            rating: wanted.rating.unwrap_or(self.opinion.rating),
            title: wanted.title.unwrap_or(self.opinion.title.clone()),
            text: wanted.text.unwrap_or(self.opinion.text.clone()),
        };
        opinion.check()?;
        if opinion == self.opinion {
            return Ok(self);
        }
        Ok(Self {
            opinion,
            written_at: now,
            version: self.version + 1,
            ..self
        })
    }

    /// The review without what it said. One that was removed stays, or its author would write it again.
    pub(crate) fn withdraw(self) -> Result<Self, ReviewsError> {
        match self.status {
            Status::Published => Ok(self.emptied()),
            Status::Removed { .. } => Err(ReviewsError::ReviewRemoved),
            Status::Withdrawn => Ok(self),
        }
    }

    /// The review of somebody who is forgotten, whoever saw it.
    pub(crate) fn forget(self) -> Self {
        match self.status {
            Status::Withdrawn => self,
            Status::Published | Status::Removed { .. } => self.emptied(),
        }
    }

    /// The review as a moderator decides; as it is already changes nothing, the first reason stands.
    pub(crate) fn moderate(self, decision: Decision, reason: &str) -> Result<Self, ReviewsError> {
        let status = match (&self.status, decision) {
            (Status::Withdrawn, _) => return Err(ReviewsError::UnknownReview),
            (Status::Published, Decision::Publish) | (Status::Removed { .. }, Decision::Remove) => {
                return Ok(self);
            }
            (Status::Removed { .. }, Decision::Publish) => Status::Published,
            (Status::Published, Decision::Remove) => Status::Removed {
                reason: reason.to_owned(),
            },
        };
        Ok(Self {
            status,
            version: self.version + 1,
            ..self
        })
    }

    fn emptied(self) -> Self {
        let opinion = Opinion {
            rating: self.opinion.rating,
            title: String::new(),
            text: String::new(),
        };
        Self {
            opinion,
            status: Status::Withdrawn,
            version: self.version + 1,
            ..self
        }
    }
}

impl Opinion {
    /// Tells the first thing that cannot be taken.
    pub(crate) fn check(&self) -> Result<(), ReviewsError> {
        within("title", &self.title, 0, TITLE_MAX_CHARS)?;
        within("text", &self.text, 1, TEXT_MAX_CHARS)
    }
}

impl Rating {
    /// Reads the number of stars.
    pub(crate) fn parse(stars: i32) -> Result<Self, ReviewsError> {
        match stars {
            1..=5 => Ok(Self(stars as u8)),
            _ => Err(ReviewsError::RatingRefused { got: stars }),
        }
    }

    /// Its number of stars.
    pub(crate) const fn stars(self) -> u8 {
        self.0
    }
}

impl Decision {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Remove => "remove",
        }
    }

    /// Reads the word.
    pub(crate) fn parse(word: &str) -> Result<Self, ReviewsError> {
        match word {
            "publish" => Ok(Self::Publish),
            "remove" => Ok(Self::Remove),
            _ => Err(ReviewsError::DecisionRefused {
                got: word.chars().take(SHOWN_CHARS).collect(),
            }),
        }
    }
}

/// Reads why a moderator decides so.
pub(crate) fn check_reason(reason: &str) -> Result<(), ReviewsError> {
    within("reason", reason, 1, REASON_MAX_CHARS)
}

impl Product {
    /// Counts a review as it is `after` a change instead of as it was `before`. Returns whether anything published changed.
    ///
    /// Also a rewording without another rating is news, for what everybody reads has changed.
    pub(crate) fn recount(&mut self, before: Option<Rating>, after: Option<Rating>) -> bool {
        if let Some(rating) = before {
            self.counts[usize::from(rating.0) - 1] -= 1;
        }
        if let Some(rating) = after {
            self.counts[usize::from(rating.0) - 1] += 1;
        }
        let changed = before.is_some() || after.is_some();
        self.version += i64::from(changed);
        changed
    }

    /// Whether everybody sees the product, or staff.
    pub(crate) fn exists_for(&self, is_staff: bool) -> bool {
        match self.listed {
            Listed::Published => true,
            Listed::Draft => is_staff,
            Listed::Deleted => false,
        }
    }
}

impl Listed {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Published => "published",
            Self::Deleted => "deleted",
        }
    }

    /// Reads the word.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::Draft, Self::Published, Self::Deleted]
            .into_iter()
            .find(|listed| listed.as_str() == word)
    }
}

/// Longest part of a refused text that an error repeats, in characters.
const SHOWN_CHARS: usize = 64;

fn within(field: &'static str, text: &str, least: usize, most: usize) -> Result<(), ReviewsError> {
    let chars = text.chars().count();
    let is_odd = |letter: char| letter.is_control() && letter != '\n';
    if chars > most || text.trim().chars().count() < least || text.chars().any(is_odd) {
        return Err(ReviewsError::TextRefused {
            field,
            chars,
            least,
            most,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(stars: i32) -> Review {
        let opinion = Opinion {
            rating: Rating::parse(stars).expect("stars"),
            title: "Warm".to_owned(),
            text: "It is.".to_owned(),
        };
        Review::new(
            Id::generate(),
            Id::generate(),
            Id::generate(),
            opinion,
            Timestamp::UNIX_EPOCH,
        )
    }

    #[test]
    fn what_a_moderator_decides_twice_is_decided_once_and_the_first_reason_stands() {
        let removed = review(4).moderate(Decision::Remove, "an advertisement");
        let removed = removed.expect("it was published");
        assert_eq!(removed.counted(), None);
        let again = removed.clone().moderate(Decision::Remove, "spam");
        assert_eq!(again.expect("it is removed"), removed);
        let back = removed
            .moderate(Decision::Publish, "a mistake")
            .expect("back");
        assert_eq!(back.counted(), Some(Rating(4)));
        assert_eq!(back.version, 3);
    }

    #[test]
    fn a_removed_review_can_be_reworded_but_neither_shown_nor_withdrawn_by_its_author() {
        let removed = review(4)
            .moderate(Decision::Remove, "rude")
            .expect("removed");
        let wanted = Rewording {
            text: Some("I beg your pardon.".to_owned()),
            ..Rewording::default()
        };
        let reworded = removed
            .reword(wanted, Timestamp::UNIX_EPOCH)
            .expect("words");
        assert_eq!(reworded.counted(), None);
        assert!(matches!(
            reworded.withdraw(),
            Err(ReviewsError::ReviewRemoved)
        ));
    }

    #[test]
    fn a_withdrawn_review_says_nothing_and_exists_for_no_moderator() {
        let withdrawn = review(4).withdraw().expect("it was published");
        assert_eq!(
            (
                withdrawn.opinion.title.as_str(),
                withdrawn.opinion.text.as_str()
            ),
            ("", "")
        );
        assert_eq!(withdrawn.clone().withdraw().expect("the same"), withdrawn);
        let refused = withdrawn.moderate(Decision::Publish, "nice");
        assert!(matches!(refused, Err(ReviewsError::UnknownReview)));
    }

    #[test]
    fn what_cannot_be_said_is_refused_by_its_name() {
        for (title, text, wanted) in [
            ("x".repeat(121), "fine".to_owned(), "title"),
            ("\u{7}".to_owned(), "fine".to_owned(), "title"),
            (String::new(), String::new(), "text"),
            (String::new(), " \n ".to_owned(), "text"),
            (String::new(), "x".repeat(5_001), "text"),
        ] {
            let opinion = Opinion {
                rating: Rating(5),
                title,
                text,
            };
            match opinion.check() {
                Err(ReviewsError::TextRefused { field, .. }) => assert_eq!(field, wanted),
                other => panic!("{wanted}: {other:?}"),
            }
        }
        assert!(Rating::parse(0).is_err() && Rating::parse(6).is_err());
    }

    #[test]
    fn a_product_counts_what_everybody_sees() {
        let mut product = Product {
            id: Id::generate(),
            listed: Listed::Published,
            counts: [0; RATINGS],
            version: 0,
        };
        assert!(product.recount(None, Some(Rating(5))));
        assert!(product.recount(Some(Rating(5)), Some(Rating(1))));
        assert!(product.recount(None, Some(Rating(1))));
        assert!(product.recount(Some(Rating(1)), None));
        assert!(!product.recount(None, None));
        assert_eq!((product.counts, product.version), ([1, 0, 0, 0, 0], 4));
    }
}
