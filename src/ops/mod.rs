//! What an operator sees of the running program: its log, what the service manager is told, and the maintenance that it
//! does by itself.

pub mod health;
pub mod http;
pub mod logging;
pub mod maintenance;
pub mod metrics;
pub mod service_manager;
pub mod status;
pub mod switch;
pub mod troubles;
