//! The internal door of a server as the binary's own commands use it: they prove by the installation's secret who they are.

use std::sync::Arc;

use anyhow::bail;
use holdfast_platform::{
    identity::{PEER_HEADER, PeerIdentity},
    settings::Settings,
};
use serde_json::Value;

use crate::{assemble, home::Home, process};

/// The name that the binary's own commands go by.
pub(crate) const OPERATOR: &str = "operator";

/// Where an operator asks a server for what is nobody else's business.
pub(crate) struct InternalDoor {
    http: reqwest::Client,
    url: String,
    operator: PeerIdentity,
}

impl InternalDoor {
    /// That at `url`, or of the server of the data folder.
    pub(crate) fn find(settings: &Settings, url: Option<String>) -> anyhow::Result<Self> {
        let home = Home::find(&settings.section("process")?)?;
        let url = match url {
            Some(url) => url,
            None => home.address()?.internal,
        };
        let key = assemble::peer_key(&process::secrets(settings, &home)?);
        Ok(Self {
            http: reqwest::Client::new(),
            url,
            operator: PeerIdentity::new(OPERATOR, key, Arc::new(process::clock(settings)?)),
        })
    }

    /// Reads a page, with this in its query.
    pub(crate) async fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
        let mut url = reqwest::Url::parse(&format!("{}{path}", self.url))?;
        for (name, value) in query {
            url.query_pairs_mut().append_pair(name, value);
        }
        self.ask(self.http.get(url)).await
    }

    /// Has something done.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.http.post(format!("{}{path}", self.url)).json(body);
        self.ask(request).await
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        let proof = self.operator.request(()).into_parts().0.into_headers();
        let response = request.headers(proof).send().await?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            bail!("the server answered {status} to {PEER_HEADER}: {text}");
        }
        Ok(serde_json::from_str(&text)?)
    }
}
