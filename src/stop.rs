//! Ctrl-C and SIGTERM, as a flag that long work looks at.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

/// A flag that the first SIGINT or SIGTERM sets; the second ends the process at
/// once, with exit code 130.
pub fn on_signal() -> std::io::Result<&'static AtomicBool> {
    static STOP: AtomicBool = AtomicBool::new(false);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if STOP.swap(true, Ordering::Relaxed) {
                        std::process::exit(130);
                    }
                }
            })
        })?;
    Ok(&STOP)
}
