//! The dead man's switch: a URL elsewhere that is called while no stage fails. The service behind it raises
//! an alarm when the calls stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use url::Url;
use vodrelay_core::error_code::ErrorCode;

use super::health::HealthVerdict;

/// The interval of the calls.
const PERIOD: Duration = Duration::from_secs(60);
/// The longest duration of a call.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Calls `url` every minute in which every stage is ready and every loop alive, until `stop` is cancelled.
///
/// # Errors
///
/// When no client can be made.
pub fn spawn(
    url: Url,
    verdict: watch::Receiver<Arc<HealthVerdict>>,
    stop: CancellationToken,
) -> reqwest::Result<JoinHandle<()>> {
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("vodrelay/", env!("CARGO_PKG_VERSION")))
        .build()?;
    Ok(tokio::spawn(async move {
        stop.run_until_cancelled(call_on(&client, &url, verdict, PERIOD)).await;
    }))
}

async fn call_on(
    client: &reqwest::Client,
    url: &Url,
    mut verdict: watch::Receiver<Arc<HealthVerdict>>,
    period: Duration,
) {
    let mut failing = false;
    loop {
        let well = verdict.wait_for(|verdict| verdict.ready && verdict.live).await.is_ok();
        if !well {
            return;
        }
        let answer = client.get(url.clone()).send().await.and_then(reqwest::Response::error_for_status);
        match answer {
            Ok(_) if failing => {
                failing = false;
                info!("the dead man's switch is called again");
            }
            Ok(_) => {}
            Err(error) if !failing => {
                failing = true;
                // Its address often holds a token: it is not repeated.
                let error = error.without_url();
                warn!(error_code = %ErrorCode::SwitchUnreachable, %error, "the dead man's switch cannot be called (health.dead_mans_switch_url); it will raise a false alarm");
            }
            Err(_) => {}
        }
        tokio::time::sleep(period).await;
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::sync::mpsc;

    use super::*;

    fn verdict(ready: bool) -> Arc<HealthVerdict> {
        Arc::new(HealthVerdict {
            ready,
            unproven: Vec::new(),
            live: true,
            stuck_loops: Vec::new(),
            stages: Vec::new(),
        })
    }

    #[tokio::test]
    async fn it_is_called_while_all_is_well_and_only_then() {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (called, mut calls) = mpsc::unbounded_channel();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let page = get(move || async move { called.send(()).unwrap() });
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/", page)).await });
        let (sender, watched) = watch::channel(verdict(false));
        let client = reqwest::Client::new();
        let caller =
            tokio::spawn(async move { call_on(&client, &url, watched, Duration::from_millis(5)).await });
        sender.send_replace(verdict(true));
        for _ in 0..3 {
            tokio::time::timeout(Duration::from_secs(20), calls.recv()).await.unwrap().unwrap();
        }
        sender.send_replace(verdict(false));
        // One call may be in flight. Then there are none until all stages are ready again.
        let silence =
            async { while tokio::time::timeout(Duration::from_millis(100), calls.recv()).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(20), silence).await.unwrap();
        sender.send_replace(verdict(true));
        tokio::time::timeout(Duration::from_secs(20), calls.recv()).await.unwrap().unwrap();
        caller.abort();
    }
}
