//! What operators see of the running program: its log, its health, its metrics, its status, what the service manager is told; and
//! the maintenance that it does by itself.

pub mod dead_mans_switch;
pub mod health;
pub mod http;
pub mod logging;
pub mod maintenance;
pub mod metrics;
pub mod problems;
pub mod service_manager;
pub mod status;
