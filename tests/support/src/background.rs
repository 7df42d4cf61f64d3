//! The runtime on which in-process servers live: not the test's own, which a test may block, or end while another test
//! still uses the server.

use std::future::Future;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2).thread_name("in-process server").enable_all();
        builder.build().expect("a runtime can be built")
    })
}

/// A task that ends when this is dropped, and everything that it owns with it.
#[derive(Debug)]
pub(crate) struct Background(JoinHandle<()>);

impl Background {
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(runtime().spawn(task))
    }

    /// Ends the task, and returns when all that it owned is dropped.
    pub(crate) async fn stop(mut self) {
        self.0.abort();
        (&mut self.0).await.ok();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}
