//! Events that make reconciliation happen sooner. None carries anything that reconciling would not find by itself.

use std::marker::PhantomData;
use std::sync::Arc;

use async_trait::async_trait;
use prost::{Message, Name};
use tidemill_chassis::Fault;
use tidemill_platform::consumer::{Handler, Incoming};

use crate::fleet::Fleet;

/// Rings the fleet at every event of one kind.
pub(crate) struct Ring<P> {
    fleet: Arc<Fleet>,
    kind: PhantomData<fn(P)>,
}

impl<P> Ring<P> {
    pub(crate) fn new(fleet: &Arc<Fleet>) -> Arc<Self> {
        Arc::new(Self { fleet: fleet.clone(), kind: PhantomData })
    }
}

#[async_trait]
impl<P: Message + Name + Default + 'static> Handler for Ring<P> {
    type Payload = P;

    async fn handle(&self, _incoming: Incoming<P>) -> Result<(), Fault> {
        self.fleet.ring();
        Ok(())
    }
}
