//! The one statement in the forms that batches come in.
//!
//! A section that has nothing to write costs PostgreSQL as much to set up as one that has, and a batch is often a single
//! request: leaving out what an everyday batch does not need takes a fifth off it. Every form has the fence and guards all
//! that it writes; they share their parameters, of which a section that is left out gets empty arrays.

use tokio_postgres::{Client, Error, Statement};

/// Parameters of the whole statement.
pub(super) const WHOLE_PARAMETERS: usize = 85;
/// Parameters of all that an everyday batch writes: those before the line's.
const EVERYDAY_PARAMETERS: usize = 68;

/// What a batch writes besides moved pools and movements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Anything.
    Whole,
    /// Holds that are made, and holds that change.
    Everyday,
    /// Holds that are made.
    Reserving,
    /// Holds that change.
    Moving,
}

/// The statement, prepared in every form.
pub(super) struct Forms {
    whole: Statement,
    everyday: Statement,
    reserving: Statement,
    moving: Statement,
}

impl Form {
    fn sections(self) -> &'static [&'static str] {
        match self {
            Self::Whole => &[
                "made_pools",
                "made_holds",
                "moved_holds",
                "requests",
                "made_stands",
                "left_stands",
                "news_of_stands",
            ],
            Self::Everyday => &["made_holds", "moved_holds"],
            Self::Reserving => &["made_holds"],
            Self::Moving => &["moved_holds"],
        }
    }

    /// How many of the statement's parameters it takes, from the first.
    pub(super) fn parameters(self) -> usize {
        match self {
            Self::Whole => WHOLE_PARAMETERS,
            Self::Everyday | Self::Reserving | Self::Moving => EVERYDAY_PARAMETERS,
        }
    }

    /// The statement without the sections that this form leaves out, which it marks by `-- only: <section>` and `-- end`.
    fn of(self, statement: &str) -> String {
        let mut text = String::with_capacity(statement.len());
        let mut is_in = true;
        for line in statement.lines() {
            match line.strip_prefix("-- only: ") {
                Some(section) => is_in = self.sections().contains(&section),
                None if line == "-- end" => is_in = true,
                None if is_in => {
                    text.push_str(line);
                    text.push('\n');
                }
                None => {}
            }
        }
        text
    }
}

impl Forms {
    pub(super) async fn prepare(client: &Client, statement: &str) -> Result<Self, Error> {
        let whole = client.prepare(&Form::Whole.of(statement)).await?;
        let lean = async |form: Form| {
            let types = &whole.params()[..form.parameters()];
            client.prepare_typed(&form.of(statement), types).await
        };
        let (everyday, reserving, moving) = tokio::try_join!(
            lean(Form::Everyday),
            lean(Form::Reserving),
            lean(Form::Moving)
        )?;
        Ok(Self {
            whole,
            everyday,
            reserving,
            moving,
        })
    }

    pub(super) fn get(&self, form: Form) -> &Statement {
        match form {
            Form::Whole => &self.whole,
            Form::Everyday => &self.everyday,
            Form::Reserving => &self.reserving,
            Form::Moving => &self.moving,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_keeps_the_fence_and_the_guards_of_what_it_writes() {
        let statement = include_str!("statement.sql");
        let marked: Vec<&str> = statement
            .lines()
            .filter_map(|line| line.strip_prefix("-- only: "))
            .collect();
        assert!(
            marked
                .iter()
                .all(|section| Form::Whole.sections().contains(section)),
            "{marked:?}"
        );
        for form in [Form::Whole, Form::Everyday, Form::Reserving, Form::Moving] {
            let text = form.of(statement);
            let has = |piece: &str| text.contains(piece);
            assert!(has("FROM fenced) = 1"), "{form:?}");
            assert!(has("FROM moved_pools) ="), "{form:?}");
            for section in Form::Whole.sections() {
                let kept = form.sections().contains(section);
                assert_eq!(has(&format!("), {section} AS (")), kept, "{form:?}");
            }
            let moves_holds = form.sections().contains(&"moved_holds");
            assert_eq!(has("FROM moved_holds) ="), moves_holds, "{form:?}");
        }
    }
}
