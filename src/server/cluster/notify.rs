//! How a [`Node`] sends and takes notifications to the clients of all instances.

use std::sync::{Arc, PoisonError};

use super::{
    audience::Audience,
    fan_out::{Deliver, FanOut},
    members::Process,
    node::Node,
    report::PendingReports,
    wire::{Head, Published, Report, Unnumbered},
};
use crate::{
    cluster::bus::PublishError,
    error::{Error, MessageError},
    server::registry::report::BroadcastReport,
};

/// Notification that is to be published.
pub(in crate::server) struct PreparedNotification {
    message: Unnumbered,
    audience: Audience,
}

impl Node {
    /// Adds a registry whose clients are notified, for as long as it lives.
    pub(in crate::server) fn add_registry(&self, registry: Arc<dyn Deliver>) {
        let mut registries = self.fan_out.registries();
        registries.retain(|registry| registry.key().is_some());
        registries.push(registry);
    }

    /// Prepares a notification, given as JSON-RPC, for the bus.
    ///
    /// # Errors
    /// [`MessageError::TooBig`] when the bus does not take it.
    pub(in crate::server) fn prepare(
        &self,
        audience: &Audience,
        json: &[u8],
    ) -> Result<PreparedNotification, Error> {
        let head = Head { from: self.this.clone(), to: audience.clone() };
        let message =
            Unnumbered::new(&head, json).map_err(|error| MessageError::Encode(Arc::new(error)))?;
        let (size, limit) = (message.size(), self.bus.max_payload());
        if size > limit {
            return Err(MessageError::TooBig { size, limit }.into());
        }
        Ok(PreparedNotification { message, audience: audience.clone() })
    }

    /// Hands a notification to the registries of this process, but not to the one of key `except`.
    pub(in crate::server) fn deliver_here(
        &self,
        audience: &Audience,
        json: &[u8],
        except: Option<usize>,
    ) -> BroadcastReport {
        self.fan_out.deliver(audience, json, except).unwrap_or_default()
    }

    /// Publishes a notification to the other instances, without waiting.
    ///
    /// `None` if it is for nobody elsewhere.
    ///
    /// # Errors
    /// [`PublishError`] when the bus does not take it. The others learn by its number that they
    /// have missed it.
    pub(in crate::server) fn publish(
        &self,
        prepared: PreparedNotification,
    ) -> Result<Option<PendingReports>, PublishError> {
        let PreparedNotification { message, audience } = prepared;
        let expected = match audience.only_at() {
            Some(instance) if instance == self.this.instance => return Ok(None),
            Some(instance) => vec![instance.to_owned()],
            None => self.members().up(),
        };
        let FanOut { sent, reports, .. } = &self.fan_out;
        let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
        *sent += 1;
        if self.has_left() {
            return Err(PublishError::Away);
        }
        // Before it is published: a report may come at once.
        let pending = reports.expect(*sent, expected);
        self.bus.publish(&self.subjects.notifications, message.numbered(*sent))?;
        Ok(Some(pending))
    }

    /// Takes a notification of this instance or another.
    pub(super) fn on_notification(&self, payload: &[u8]) {
        let Some(Published { number, head, json }) = Published::parse(payload) else {
            return self.warn_of(&self.subjects.notifications, "what is no notification");
        };
        let Head { from, to } = head;
        if from == self.this {
            return;
        }
        if from.instance != self.this.instance {
            let mut events = Vec::new();
            self.members().on_notification(&from, number, &mut events);
            self.announce(events);
        }
        if !to.may_be_at(&self.this.instance) {
            return;
        }
        match self.fan_out.deliver(&to, json, None) {
            Some(report) => self.report(from, number, &report),
            None => {
                self.warn_of(&self.subjects.notifications, "a notification that cannot be read")
            }
        }
    }

    /// Tells the sender of a notification whom it has reached here.
    fn report(&self, to: Process, number: u64, report: &BroadcastReport) {
        let Ok(subject) = self.subject(&format!("i.{}", to.instance)) else { return };
        let by = self.this.instance.clone();
        let report = Report { by, to, number, reached: report.into() };
        if let Ok(message) = report.message() {
            self.answer(&subject, message);
        }
    }

    /// Takes the report of another instance. Returns `false` if it is none.
    pub(super) fn on_report(&self, payload: &[u8]) -> bool {
        let Some(Report { by, to, number, reached }) = Report::parse(payload) else { return false };
        if to == self.this {
            self.fan_out.reports.on_report(number, by, reached);
        }
        true
    }
}
