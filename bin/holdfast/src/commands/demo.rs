//! Starts a server, seeds a shop, has people register, find, buy and review through the public API, shows what happened
//! and that the books are clean, and goes on serving. Beside it stands a receiver that is told of all that by webhooks.

mod receiver;
mod visit;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use holdfast_kernel::RequestId;
use holdfast_notifications::Carrier;
use holdfast_platform::{identity::Role, settings::Settings};
use serde_json::{Value, json};
use tokio::time;

use self::receiver::Receiver;
use super::{audit, seed, serve, token};
use crate::{
    assemble,
    client::{Client, ClientError, Problem},
    home::Home,
    process::Process,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// End after the purchases instead of serving on
    #[arg(long)]
    exit: bool,
    /// Address of the public HTTP door
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

/// The accounts one can log in with afterwards.
const LOGINS: [(&str, &str, Role); 3] = [
    ("customer@holdfast.example", "Hanako, who buys", Role::User),
    (
        "staff@holdfast.example",
        "Kenji, who runs the shop",
        Role::Staff,
    ),
    (
        "admin@holdfast.example",
        "Aiko, who may do everything",
        Role::Admin,
    ),
];

/// How long the demo waits for what is sure to come about.
const WAIT_MAX_SECS: u64 = 10;
/// How often it looks.
const LOOK_AGAIN_MILLIS: u64 = 10;

/// An account that was logged in to.
struct Login {
    email: &'static str,
    password: String,
    client: Client,
}

/// A message that a webhook is to bring.
struct Awaited {
    kind: &'static str,
    /// The id of what it tells of.
    subject: String,
}

pub(crate) async fn run(settings: Settings, args: Args) -> anyhow::Result<ExitCode> {
    let settings = match &args.listen {
        Some(address) => settings.with("process.listen", address),
        None => settings,
    };
    let settings = settings.with("webhooks.allowed_networks", [receiver::NETWORK]);
    let mut receiver = Receiver::start().await?;
    let process = Process::start(settings.clone(), &serve::all()).await?;
    let url = process
        .ready
        .url
        .clone()
        .context("a process with the gateway has a public door")?;
    let shown = show(&settings, &url, &mut receiver).await;
    if args.exit || shown.is_err() {
        process.stop().await?;
        return shown;
    }
    say(&format!("\nServing on {url} until Ctrl-C."));
    let telling = tokio::spawn(async move {
        while let Some(message) = receiver.next().await {
            say(&told(&message));
        }
    });
    process.run().await?;
    telling.abort();
    shown
}

async fn show(settings: &Settings, url: &str, receiver: &mut Receiver) -> anyhow::Result<ExitCode> {
    let [customer, staff, admin] = logins(settings, url).await?;
    let count = seed::seed(&admin.client).await?;
    say(&format!(
        "Holdfast runs on {url} and sells {count} products.\n"
    ));
    receiver.subscribe(&admin.client).await?;
    let mut awaited = visit::visit(url, &staff.client).await?;
    awaited.extend(buy(&customer.client, &staff.client).await?);
    say("\nA receiver was told by webhooks, and the signatures hold:");
    tell(receiver, awaited).await?;
    let home = Home::find(&settings.section("process")?)?;
    let mail = assemble::notifications(settings, home.folder())?;
    if mail.mail == Carrier::Folder {
        say(&format!(
            "\nThe mail they get lies in {}.",
            mail.mail_folder.display()
        ));
    }
    say("\nThe books:");
    let code = audit::run(settings, &audit::Args::default()).await?;
    say("\nLog in as:");
    for login in [customer, staff, admin] {
        say(&format!("  {:<28} {}", login.email, login.password));
    }
    Ok(code)
}

/// Makes the accounts, or gives them new passwords, and logs in to each.
async fn logins(settings: &Settings, url: &str) -> anyhow::Result<[Login; 3]> {
    let passwords = LOGINS.map(|_| RequestId::generate().to_string());
    token::with_operator(settings, async |operator| {
        for ((email, name, role), password) in LOGINS.iter().zip(&passwords) {
            operator
                .ensure_account(email, password, name, *role)
                .await?;
        }
        Ok(())
    })
    .await?;
    let nobody = Client::new(url);
    let mut logins = Vec::new();
    for ((email, _, _), password) in LOGINS.into_iter().zip(passwords) {
        logins.push(Login {
            email,
            client: log_in(&nobody, email, &password).await?,
            password,
        });
    }
    logins
        .try_into()
        .map_err(|_| anyhow!("three accounts make three logins"))
}

async fn log_in(nobody: &Client, email: &str, password: &str) -> anyhow::Result<Client> {
    let body = json!({"email": email, "password": password});
    let answer = nobody
        .post("/v1/users/login", &RequestId::generate(), &body)
        .await?;
    let access = answer["access_token"]
        .as_str()
        .context("a login answers an access token")?;
    Ok(nobody.with_token(access))
}

/// One purchase of each outcome: confirmed, sold out, declined, refunded.
async fn buy(customer: &Client, staff: &Client) -> anyhow::Result<Vec<Awaited>> {
    let (sku, name, available) = something_to_buy(customer).await?;

    let order = place(customer, &sku, 2, "sandbox_ok").await?;
    say(&format!(
        "bought     2 × {name} for {}: order {} is {}; {available} were left, now {}",
        money(&order["total"]),
        order["id"].as_str().unwrap_or_default(),
        order["status"].as_str().unwrap_or_default(),
        left(customer, &sku).await?,
    ));

    let wanted = left(customer, &sku).await? + 1;
    let refusal = refused(place(customer, &sku, wanted, "sandbox_ok").await)?;
    say(&format!(
        "sold out   {wanted} × {name}: {}; {} are still left",
        refusal,
        left(customer, &sku).await?
    ));

    let declined = refused(place(customer, &sku, 1, "sandbox_declined").await)?;
    say(&format!(
        "declined   1 × {name}: {}; {} are still left",
        declined,
        left(customer, &sku).await?
    ));

    let id = order["id"].as_str().unwrap_or_default();
    let body = json!({"reason": "a change of mind"});
    let refunded = staff
        .post(
            &format!("/v1/orders/{id}/refunds"),
            &RequestId::generate(),
            &body,
        )
        .await?;
    say(&format!(
        "refunded   order {id} is {}; {} are left again",
        refunded["status"].as_str().unwrap_or_default(),
        left(customer, &sku).await?,
    ));
    Ok(vec![
        Awaited::of("order.confirmed", &order["id"]),
        Awaited::of("order.payment_failed", &declined.document["order_id"]),
        Awaited::of("order.refunded", &order["id"]),
    ])
}

/// Shows what the receiver got, in the order in which it came, until nothing is awaited any more.
async fn tell(receiver: &mut Receiver, mut awaited: Vec<Awaited>) -> anyhow::Result<()> {
    while let Some(next) = awaited.first() {
        let limit = Duration::from_secs(WAIT_MAX_SECS);
        let message = time::timeout(limit, receiver.next()).await.ok().flatten();
        let message = message
            .with_context(|| format!("no webhook told {} of {}", next.kind, next.subject))?;
        say(&told(&message));
        awaited.retain(|awaited| !awaited.is_told_by(&message));
    }
    Ok(())
}

impl Awaited {
    fn of(kind: &'static str, subject: &Value) -> Self {
        Self {
            kind,
            subject: subject.as_str().unwrap_or_default().to_owned(),
        }
    }

    fn is_told_by(&self, message: &Value) -> bool {
        message["type"] == self.kind && message["subject"] == self.subject.as_str()
    }
}

fn told(message: &Value) -> String {
    let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
    format!("told       {:<24} {}", text("type"), text("subject"))
}

/// The first variant on sale that there are at least three of: its SKU, its name, how many. By name, for the seed's
/// products are made side by side and which of them is newest is chance.
async fn something_to_buy(customer: &Client) -> anyhow::Result<(String, String, i64)> {
    let products = customer.get("/v1/products?sort=name&limit=100").await?;
    for product in products["data"].as_array().into_iter().flatten() {
        for variant in product["variants"].as_array().into_iter().flatten() {
            let available = variant["available"].as_i64().unwrap_or_default();
            if let (Some(sku), Some(name)) = (variant["sku"].as_str(), product["name"].as_str())
                && available >= 3
            {
                return Ok((sku.to_owned(), name.to_owned(), available));
            }
        }
    }
    bail!("the shop is sold out; start with another --data-dir")
}

async fn place(
    client: &Client,
    sku: &str,
    quantity: i64,
    card: &str,
) -> Result<Value, ClientError> {
    let body = json!({
        "items": [{"sku": sku, "quantity": quantity}],
        "payment_method": {"type": "card", "token": card},
    });
    client
        .post("/v1/orders", &RequestId::generate(), &body)
        .await
}

async fn left(client: &Client, sku: &str) -> anyhow::Result<i64> {
    let pool = client.get(&format!("/v1/inventory/{sku}")).await?;
    pool["available"]
        .as_i64()
        .context("a pool tells how much of it is available")
}

fn refused(answer: Result<Value, ClientError>) -> anyhow::Result<Box<Problem>> {
    match answer {
        Err(ClientError::Refused(problem)) => Ok(problem),
        Err(error) => Err(error.into()),
        Ok(order) => bail!("expected a refusal, got {order}"),
    }
}

/// Looks until `condition` gives something; `what` says what was waited for.
async fn until<T>(
    what: &str,
    mut condition: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let looking = async {
        loop {
            if let Some(found) = condition().await? {
                return Ok(found);
            }
            time::sleep(Duration::from_millis(LOOK_AGAIN_MILLIS)).await;
        }
    };
    let limit = Duration::from_secs(WAIT_MAX_SECS);
    let found = time::timeout(limit, looking).await;
    found.with_context(|| format!("{what}: not within {WAIT_MAX_SECS} s"))?
}

fn money(value: &Value) -> String {
    serde_json::from_value::<holdfast_kernel::Money>(value.clone())
        .map_or_else(|_| value.to_string(), |money| money.to_string())
}

#[expect(clippy::print_stdout, reason = "a demonstration talks")]
fn say(line: &str) {
    println!("{line}");
}
