//! The operators' view of the running program: log, health, metrics, status, service manager; and scheduled
//! maintenance.

pub mod dead_mans_switch;
pub mod health;
pub mod http;
pub mod logging;
pub mod maintenance;
pub mod metrics;
pub mod problems;
pub mod service_manager;
pub mod status;
