//! One dial for all who want the same connection at the same moment.
//!
//! Whoever comes first dials and tells the others what became of it. If it leaves first, the next one
//! dials. Knows nothing of what is dialled or told.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// The dial under way, if there is one.
#[derive(Debug)]
pub struct Joint<T>(Mutex<Option<Current<T>>>);

#[derive(Debug)]
struct Current<T> {
    told: watch::Receiver<Option<T>>,
    waiting: usize,
}

/// What is to be done.
#[derive(Debug)]
pub enum Turn<T> {
    /// Dial, and tell the others; they are released when this is dropped.
    Dial(Teller<T>),
    /// Wait for who dials.
    Wait(Dialled<T>),
}

/// The right to dial for all.
#[derive(Debug)]
pub struct Teller<T>(watch::Sender<Option<T>>);

/// What will be told.
#[derive(Debug)]
pub struct Dialled<T>(watch::Receiver<Option<T>>);

// === impl Joint ===

impl<T> Default for Joint<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Joint<T> {
    /// Joins the dial under way, unless `most` wait for it already: then they need one more.
    pub fn join(&self, most: usize) -> Turn<T> {
        // A poisoned lock only means that another thread panicked between two plain stores.
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Current { told, waiting }) = &mut *current
            && told.has_changed().is_ok()
            && told.borrow().is_none()
            && *waiting < most
        {
            *waiting += 1;
            return Turn::Wait(Dialled(told.clone()));
        }
        let (teller, told) = watch::channel(None);
        *current = Some(Current { told, waiting: 0 });
        Turn::Dial(Teller(teller))
    }
}

// === impl Teller ===

impl<T> Teller<T> {
    /// Tells what became of it.
    pub fn tell(self, what: T) {
        self.0.send_replace(Some(what));
    }
}

// === impl Dialled ===

impl<T: Clone> Dialled<T> {
    /// What became of the dial; `None` if who dialled left before its end.
    pub async fn wait(mut self) -> Option<T> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dials(joint: &Joint<u8>) -> Teller<u8> {
        match joint.join(2) {
            Turn::Dial(teller) => teller,
            Turn::Wait(_) => panic!("somebody else dials"),
        }
    }

    fn waits(joint: &Joint<u8>) -> Dialled<u8> {
        match joint.join(2) {
            Turn::Wait(told) => told,
            Turn::Dial(_) => panic!("nobody else dials"),
        }
    }

    #[tokio::test]
    async fn one_dials_and_the_others_are_told() {
        let joint = Joint::default();
        let teller = dials(&joint);
        let (one, two) = (waits(&joint), waits(&joint));
        let second = dials(&joint);
        let three = waits(&joint);
        teller.tell(7);
        assert_eq!((one.wait().await, two.wait().await), (Some(7), Some(7)));
        second.tell(8);
        assert_eq!(three.wait().await, Some(8));
        drop(dials(&joint));
    }

    #[tokio::test]
    async fn when_who_dials_leaves_the_next_one_dials() {
        let joint = Joint::default();
        let teller = dials(&joint);
        let told = waits(&joint);
        drop(teller);
        assert_eq!(told.wait().await, None);
        dials(&joint).tell(1);
        dials(&joint).tell(2);
    }
}
