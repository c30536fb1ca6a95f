//! How many connections a door holds, all in all and of one address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{hygiene::TrustedHops, server::ClientAddress};

/// The places of a door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Places {
    free: Arc<Semaphore>,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    most_of_one: usize,
    /// A proxy of ours holds the connections of all its clients.
    unbound: TrustedHops,
}

/// A place for one connection that is yet to come.
#[derive(Debug)]
pub(crate) struct Free(OwnedSemaphorePermit);

/// A connection's place; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    _one: OwnedSemaphorePermit,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    by: Option<IpAddr>,
}

impl Places {
    /// `most` places, of which a client's network may have `most_of_one`, and these networks all.
    pub fn new(most: usize, most_of_one: usize, unbound: &[IpNet]) -> Self {
        Self {
            free: Arc::new(Semaphore::new(most)),
            taken: Arc::default(),
            most_of_one,
            unbound: TrustedHops::new(unbound),
        }
    }

    /// Waits for a free place.
    pub(crate) async fn free(&self) -> Free {
        let permit = self.free.clone().acquire_owned().await;
        Free(permit.expect("never closed"))
    }

    /// Gives a free place to a client, unless its network has as many as one may have.
    pub(crate) fn take(&self, Free(one): Free, client: Option<ClientAddress>) -> Option<Place> {
        let by = client
            .filter(|ClientAddress(address)| !self.unbound.contains(*address))
            .map(ClientAddress::network);
        if let Some(network) = by {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            let places = taken.entry(network).or_default();
            if *places >= self.most_of_one {
                return None;
            }
            *places += 1;
        }
        Some(Place {
            _one: one,
            taken: self.taken.clone(),
            by,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(network) = self.by else { return };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = taken.get_mut(&network) {
            *places -= 1;
            if *places == 0 {
                taken.remove(&network);
            }
        }
    }
}
