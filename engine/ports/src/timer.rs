//! Timers that the runtime hears of once, not at each look.
//!
//! Whoever waits for an answer under a deadline is woken by many things before that. The simulator's sleep adds a timer
//! each time it is looked at and never takes one back, so each look costs one more wake-up for nothing later; production's
//! sleep takes a lock. These look at the clock first, and tell the runtime only whom to wake.
//!
//! What is *not* here: what time it is ([`crate::Clock`]).

use std::ops::DerefMut;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Sleep;

/// The deadline came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late;

/// A sleep, and who was told to the runtime.
struct Timer<P> {
    sleep: Pin<P>,
    told: Option<Waker>,
}

impl<P: DerefMut<Target = Sleep>> Timer<P> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Held, so the place in memory is not another's meanwhile. The tables of functions beside it may differ by how
        // the program was compiled, and what is woken may not.
        let is_told = self.told.as_ref().is_some_and(|told| told.data() == cx.waker().data());
        if is_told && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        let poll = self.sleep.as_mut().poll(cx);
        self.told = poll.is_pending().then(|| cx.waker().clone());
        poll
    }
}

/// Waits for so long.
pub async fn pause(time: Duration) {
    let mut timer = Timer { sleep: pin!(tokio::time::sleep(time)), told: None };
    std::future::poll_fn(|cx| timer.poll(cx)).await;
}

/// Does work until a deadline: it is dropped then.
pub async fn within<F: Future>(limit: Duration, work: F) -> Result<F::Output, Late> {
    let (mut work, sleep) = (pin!(work), pin!(tokio::time::sleep(limit)));
    let mut timer = Timer { sleep, told: None };
    std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => timer.poll(cx).map(|()| Err(Late)),
    })
    .await
}

/// An alarm that is set again and again, mostly to a later time: a loop that waits for what comes first. One that was set to
/// an earlier time is kept, and put off when it rings.
#[derive(Default)]
pub struct Alarm {
    timer: Option<Timer<Box<Sleep>>>,
}

impl Alarm {
    /// Waits for so long from now on; whatever it was set to before is forgotten.
    pub async fn ring_after(&mut self, wait: Duration) {
        let wanted = tokio::time::sleep(wait);
        let at = wanted.deadline();
        if self.timer.as_ref().is_none_or(|timer| timer.sleep.deadline() > at) {
            self.timer = Some(Timer { sleep: Box::pin(wanted), told: None });
        }
        std::future::poll_fn(|cx| {
            let Some(timer) = &mut self.timer else { return Poll::Ready(()) };
            while timer.poll(cx).is_ready() {
                if timer.sleep.deadline() >= at {
                    self.timer = None;
                    return Poll::Ready(());
                }
                timer.sleep.as_mut().reset(at);
            }
            Poll::Pending
        })
        .await;
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use tokio::time::{Instant, advance};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Woken>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn what_is_done_in_time_has_its_result_and_what_is_not_is_late() {
        let began = Instant::now();
        assert_eq!(within(2 * SECOND, tokio::time::sleep(SECOND)).await, Ok(()));
        assert_eq!(within(SECOND, std::future::pending::<()>()).await, Err(Late));
        assert_eq!(began.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_is_looked_at_often_ends_in_time_and_wakes_once() {
        let (woken, began) = (Arc::new(Woken::default()), Instant::now());
        let (mut waits, waker) = (pin!(pause(2 * SECOND)), Waker::from(woken.clone()));
        for _ in 0..3 {
            assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        advance(3 * SECOND).await;
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        waits.await;
        assert_eq!(began.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn who_looked_last_is_woken() {
        let (one, other) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
        let mut late = pin!(within(SECOND, std::future::pending::<()>()));
        for woken in [&one, &one, &other] {
            assert!(late.as_mut().poll(&mut Context::from_waker(&Waker::from(woken.clone()))).is_pending());
        }
        advance(2 * SECOND).await;
        assert_eq!((one.0.load(Ordering::Relaxed), other.0.load(Ordering::Relaxed)), (0, 1));
        assert_eq!(late.await, Err(Late));
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_rings_when_it_was_set_to_last() {
        let (mut alarm, began) = (Alarm::default(), Instant::now());
        for wait in [5, 9, 3] {
            assert_eq!(within(SECOND, alarm.ring_after(wait * SECOND)).await, Err(Late), "set to {wait} s");
        }
        alarm.ring_after(4 * SECOND).await;
        assert_eq!(began.elapsed().as_secs(), 7);
        alarm.ring_after(SECOND).await;
        assert_eq!(began.elapsed().as_secs(), 8, "it can be set again after it rang");
    }
}
