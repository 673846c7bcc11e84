//! [`Questions`]: for whoever implements a bus, the questions that wait for their answers.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::oneshot, time::timeout};

use super::bus::AskError;

/// Questions that wait for their answers, by number; a cheap handle.
///
/// Whoever implements [`Bus::ask`](super::Bus::ask) [opens](Self::open) a question, publishes its
/// number within `reply_to`, and hands what arrives there to [`answer`](Self::answer).
#[derive(Clone, Default)]
pub struct Questions {
    state: Arc<Mutex<State>>,
}

/// Question that waits for its answer; forgotten when this is dropped.
pub struct Question {
    questions: Questions,
    number: u64,
    answer: oneshot::Receiver<Result<Bytes, AskError>>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<u64, oneshot::Sender<Result<Bytes, AskError>>>,
    last_number: u64,
}

impl Questions {
    /// Opens a question, under a number that none had before.
    #[must_use]
    pub fn open(&self) -> Question {
        let (sender, answer) = oneshot::channel();
        let mut state = self.lock();
        state.last_number += 1;
        let number = state.last_number;
        state.waiting.insert(number, sender);
        Question { questions: self.clone(), number, answer }
    }

    /// Ends a question with its first answer, or with the reason why there will be none.
    ///
    /// Returns whether it was waiting.
    pub fn answer(&self, number: u64, answer: Result<Bytes, AskError>) -> bool {
        let waiting = self.lock().waiting.remove(&number);
        waiting.is_some_and(|sender| sender.send(answer).is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Question {
    /// Returns the number of this question.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// The error that the question was answered with; [`AskError::TimedOut`] after `time`.
    pub async fn answered(mut self, time: Duration) -> Result<Bytes, AskError> {
        match timeout(time, &mut self.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(AskError::TimedOut),
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.questions.lock().waiting.remove(&self.number);
    }
}

impl fmt::Debug for Questions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Questions").field("waiting", &self.lock().waiting.len()).finish()
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").field("number", &self.number).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_question_ends_once_and_leaves_nothing() {
        let questions = Questions::default();
        let question = questions.open();
        let number = question.number();
        assert!(questions.answer(number, Ok("first".into())));
        assert!(!questions.answer(number, Ok("second".into())));
        assert_eq!(question.answered(Duration::from_secs(1)).await.unwrap(), "first");

        let late = questions.open();
        assert!(late.number() > number);
        let number = late.number();
        assert_eq!(late.answered(Duration::from_secs(1)).await, Err(AskError::TimedOut));
        assert!(!questions.answer(number, Ok("late".into())));

        drop(questions.open());
        assert!(questions.lock().waiting.is_empty());
    }
}
