//! What an operator does with the binary's own commands.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// What an account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Buys.
    User,
    /// Runs the shop.
    Staff,
    /// Everything.
    Admin,
}

/// What the auditor said.
#[derive(Debug)]
pub struct Audit {
    /// Whether nothing is wrong.
    pub clean: bool,
    /// What is, in the auditor's own words.
    pub findings: Vec<Value>,
}

/// The binary with the data folder and the environment it is run on.
#[derive(Debug, Clone)]
pub struct Operator {
    binary: PathBuf,
    data_dir: PathBuf,
    environment: Vec<(String, String)>,
}

impl Role {
    /// As the binary and the books call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Staff => "staff",
            Self::Admin => "admin",
        }
    }
}

impl Operator {
    /// An operator of the data folder, with the binary of the same build as this program.
    pub fn of(data_dir: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            binary: binary()?,
            data_dir: data_dir.to_owned(),
            environment: Vec::new(),
        })
    }

    /// The same, with this in the environment.
    #[must_use]
    pub fn with(mut self, environment: &[(String, String)]) -> Self {
        self.environment.extend_from_slice(environment);
        self
    }

    /// The binary, about to be told what to do.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("--data-dir")
            .arg(&self.data_dir)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, whatever that is.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let output = self.command().args(arguments).output();
        output.with_context(|| format!("run holdfast {}", arguments.join(" ")))
    }

    /// Runs a command that has to succeed, and returns what it printed.
    pub fn done(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.run(arguments)?;
        ensure!(
            output.status.success(),
            "holdfast {}: {}: {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Access tokens of so many new accounts. Only where the cluster is embedded.
    pub fn mint(&self, role: Role, count: usize) -> anyhow::Result<Vec<String>> {
        let count_text = count.to_string();
        let said = self.done(&["token", "--role", role.as_str(), "--count", &count_text])?;
        let tokens: Vec<String> = said.lines().map(str::to_owned).collect();
        ensure!(
            tokens.len() == count,
            "token: got {} lines, wanted {count}",
            tokens.len()
        );
        Ok(tokens)
    }

    /// Has the books audited.
    pub fn audit(&self) -> anyhow::Result<Audit> {
        let output = self.run(&["audit", "--json"])?;
        let said = String::from_utf8_lossy(&output.stdout);
        let clean = match output.status.code() {
            Some(0) => true,
            Some(1) => false,
            _ => bail!(
                "audit ended with {}: {said}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            ),
        };
        let document: Value =
            serde_json::from_str(said.trim()).with_context(|| format!("audit said {said:?}"))?;
        let findings = document["findings"].as_array().cloned().unwrap_or_default();
        ensure!(
            clean == findings.is_empty(),
            "audit ended with {} and said {document}",
            output.status
        );
        Ok(Audit { clean, findings })
    }
}

/// The binary of the same build as this program: beside the folder of tests and of examples.
fn binary() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("a program knows where it is")?;
    let beside = this
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("holdfast"))
        .find(|binary| binary.is_file());
    beside.with_context(|| {
        format!(
            "no holdfast beside {}: build it first (`cargo build --package holdfast`, with --release for a release build)",
            this.display()
        )
    })
}
